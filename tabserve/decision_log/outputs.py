"""What a decision log's writer needs of the places that records go to."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from tabserve.decision_log.files import Folder


class Output(Protocol):
    """Records that become durable together, such as a file."""

    folder: Folder
    began: float
    """When its first record was put, in seconds of time.monotonic()."""
    times: array[float]
    """When each was put."""
    stored: int
    """How many are durable."""

    @property
    def rows(self) -> int:
        """How many records it holds."""

    @property
    def nbytes(self) -> int:
        """How long it is."""

    def add(self, table: pa.Table, times: Sequence[float]) -> None:
        """Append records. times: when each was put."""

    def end(self) -> None:
        """Note that nothing is added any more."""

    def store(self) -> None:
        """Make durable what is not yet. Raises OSError; then it can be tried again."""

    def abandon(self) -> None:
        """Note that it is not tried again."""


class Outputs(Protocol):
    """Makes outputs.

    at_once: whether each is stored as soon as there is something in it.
    """

    at_once: bool

    def open(self) -> None:
        """Do now what would make the first output late; never fails."""

    def begin(self, folder: Folder, began: float) -> Output:
        """A new output, which belongs to a day and a release."""
