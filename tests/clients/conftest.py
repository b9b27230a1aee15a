"""A record, and the decision that every client must get on it."""

from __future__ import annotations

from pathlib import Path

import pytest

import tabserve.bundle
from tabserve.bundle import Bundle, expected
from tests.contract.payload import Json


@pytest.fixture(scope="module")
def found(bundle: Path) -> Bundle:
    """The bundle that the transformer serves."""
    return tabserve.bundle.load(bundle)


@pytest.fixture(scope="module")
def record(found: Bundle) -> Json:
    """A record."""
    return expected.record(found, 0)


@pytest.fixture(scope="module")
def decision(found: Bundle) -> str:
    """The decision on the record."""
    return str(expected.decision(found, 0)["decision"])
