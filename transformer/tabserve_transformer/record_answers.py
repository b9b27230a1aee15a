"""What V1 answers of each record, and what the predictor must be asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from tabserve.inference.tensors import RequestedOutput, Tensor
from tabserve.schema import answers
from tabserve.schema.decisions import Decisions


class RecordAnswers:
    """One JSON object per record.

    names: its keys, each the name of an output, the id's first. needs: the predictor's outputs that they are made of.
    """

    def __init__(
        self, decisions: Decisions, classes: Sequence[str], targets: Sequence[str], identity: str | None
    ) -> None:
        self._targets = targets
        answered = answers.names(decisions.names, classes, targets)
        self.names = (*([identity] if identity else []), *answered)
        self.needs = requests((*(["predict"] if targets else []), *decisions.needs(answered)))

    def encode(self, made: Mapping[str, Tensor]) -> bytes:
        """`{"predictions": [{…}]}` of all named outputs."""
        predictions = answers.objects({name: made[name].array for name in self.names}, self._targets)
        return orjson.dumps({"predictions": predictions})


def requests(names: Sequence[str]) -> tuple[RequestedOutput, ...]:
    """Each of the predictor's outputs once."""
    return tuple(RequestedOutput(name) for name in dict.fromkeys(names))
