"""V1's answers for each record, and what the predictor must be asked for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from tabserve.arrays import Array
from tabserve.inference.tensors import RequestedOutput, Tensor
from tabserve.schema import answers
from tabserve.schema.columns import Misfit
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
        return orjson.dumps({"predictions": self._objects(made)})

    def encode_sifted(self, made: Mapping[str, Tensor], places: Sequence[int], faults: Sequence[Misfit]) -> bytes:
        """The body with a prediction for each record, null where there are faults, and `errors`, one for each fault.

        places: the positions of the records that the outputs are of.
        """
        predictions = dict.fromkeys(fault.record for fault in faults) | dict(
            zip(places, self._objects(made), strict=True)
        )
        in_order = [predictions[at] for at in range(len(predictions))]
        return orjson.dumps({"predictions": in_order, "errors": answers.errors(faults)})

    def _objects(self, made: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        return answers.objects({name: made[name].array for name in self.names}, self._targets)


def sifted_tensors(places: Array, faults: Sequence[Misfit]) -> tuple[Tensor, Tensor]:
    """The V2 outputs besides those of records that fit: each one's `row` in the request, and `errors` in JSON."""
    told = np.array([orjson.dumps(error) for error in answers.errors(faults)], object)
    return Tensor("row", "INT64", places.astype(np.int64)), Tensor("errors", "BYTES", told)


def requests(names: Sequence[str]) -> tuple[RequestedOutput, ...]:
    """Requests for the predictor's outputs, each once."""
    return tuple(RequestedOutput(name) for name in dict.fromkeys(names))
