"""The ids of a request's records: given by the request, or made from the request's own id."""

from __future__ import annotations

import uuid

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.model import Context
from tabserve.inference.request_ids import REQUEST_ID
from tabserve.inference.tensors import Tensor


def tensor(name: str, given: Array | None, count: int, context: Context) -> Tensor:
    """The ids, BYTES [count]; a record without one gets `x-request-id/row`, with a UUID if the request has no id."""
    request = context.trace.get(REQUEST_ID)
    ids = [None] * count if given is None else given.tolist()
    made = [one or (f"{request}/{at}" if request else str(uuid.uuid4())) for at, one in enumerate(ids)]
    return Tensor(name, "BYTES", np.array(made, object))
