"""Which cases of a test run always; the others run in `make test-long`."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def often(cases: Iterable[T], always: Container[T]) -> list[T]:
    """The cases as parameters of a test, of which only these are not long."""
    return [case if case in always else _long(case) for case in cases]


def _long(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
