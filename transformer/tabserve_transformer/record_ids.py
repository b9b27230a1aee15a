"""The ids of a request's records: given by the request, or made from the request's own id."""

from __future__ import annotations

import uuid

import numpy as np

from tabserve.inference.model import Context
from tabserve.inference.request_ids import REQUEST_ID
from tabserve.inference.tensors import Tensor
from tabserve_transformer.inputs import Taken


def tensor(name: str, taken: Taken, context: Context) -> Tensor:
    """The ids, BYTES [rows]; a record without one gets `x-request-id/row`, or a UUID if the request has no id."""
    request = context.trace.get(REQUEST_ID)
    places = range(len(taken.tensors[0].array)) if taken.places is None else taken.places.tolist()
    ids = [None] * len(places) if taken.ids is None else taken.ids.tolist()
    made = [one or (f"{request}/{at}" if request else str(uuid.uuid4())) for at, one in zip(places, ids, strict=True)]
    return Tensor(name, "BYTES", np.array(made, object))
