"""Places of numbers in a drawing."""

from __future__ import annotations

from typing import NamedTuple


class Scale(NamedTuple):
    """Maps numbers from `low` to `high` onto a line from `start` to `end`; numbers beyond are at its ends."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, number: float) -> float:
        """The place of a number, with one decimal."""
        share = (min(max(number, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)
