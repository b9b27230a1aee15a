"""The ids of a request's records: given by the request, or made from the request's own id."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.model import Context
from tabserve.inference.request_ids import REQUEST_ID
from tabserve.inference.tensors import Tensor


def tensor(name: str, given: Array | None, places: Sequence[int], context: Context) -> Tensor:
    """The ids, BYTES [rows]; a record without one gets `x-request-id/row`, with a UUID if the request has no id.

    places: the records' positions in the request.
    """
    request = context.trace.get(REQUEST_ID)
    ids = [None] * len(places) if given is None else given.tolist()
    made = [one or (f"{request}/{at}" if request else str(uuid.uuid4())) for at, one in zip(places, ids, strict=True)]
    return Tensor(name, "BYTES", np.array(made, object))
