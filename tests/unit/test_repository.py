"""The index of Triton's model repository extension."""

from __future__ import annotations

import pytest

from tabserve.inference import repository
from tabserve.inference.tensors import ModelMetadata

METADATA = ModelMetadata("m", ("1",), "", (), ())
READY = {"name": "m", "version": "1", "state": "READY", "reason": ""}
UNREADY = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "the model is not ready"}


@pytest.mark.parametrize(
    ("ready", "only_ready", "expected"),
    [(True, False, [READY]), (True, True, [READY]), (False, False, [UNREADY]), (False, True, [])],
)
def test_the_index_tells_the_state(ready: bool, only_ready: bool, expected: list[dict[str, str]]) -> None:
    assert repository.index(METADATA, ready=ready, only_ready=only_ready) == expected
