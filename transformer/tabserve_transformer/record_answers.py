"""V1's answers for each record, and what the predictor must be asked for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from tabserve.inference.tensors import RequestedOutput, Tensor
from tabserve.schema import answers
from tabserve.schema.decisions import Decisions


class RecordAnswers:
    """Encodes one JSON object per record.

    names: the objects' keys, each the name of an output, the id's first.
    needs: the predictor's outputs that they are made from.
    """

    def __init__(
        self, decisions: Decisions, classes: Sequence[str], targets: Sequence[str], identity: str | None
    ) -> None:
        self._targets = targets
        answered = answers.names(decisions.names, classes, targets)
        self.names = (*([identity] if identity else []), *answered)
        self.needs = requests((*(["predict"] if targets else []), *decisions.needs(answered)))

    def encode(self, made: Mapping[str, Tensor]) -> bytes:
        """The body `{"predictions": [{…}]}` with all named outputs."""
        predictions = answers.objects({name: made[name].array for name in self.names}, self._targets)
        return orjson.dumps({"predictions": predictions})


def requests(names: Sequence[str]) -> tuple[RequestedOutput, ...]:
    """Requests for the predictor's outputs, each once."""
    return tuple(RequestedOutput(name) for name in dict.fromkeys(names))
