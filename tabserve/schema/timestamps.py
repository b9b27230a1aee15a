"""Timestamps and dates of a record: ISO 8601 or seconds since 1970, always UTC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from tabserve.arrays import Array

DAY = 86_400.0
"""The seconds of a day."""
_EPOCH, _LAST_SECOND = datetime(1970, 1, 1, tzinfo=UTC), 253_402_300_799.0
_LOWEST, _HIGHEST = (np.frombuffer(time, np.uint8) for time in (b"0000-00-00T00:00:00", b"9999-99-99T99:99:99"))
"""Each letter of a time in UTC, at least and at most."""
_MANY = 32
"""From how many times on it is faster to read them together."""
EARLIEST, LATEST = -62_135_596_800.0, 253_402_300_799.999999
"""The years 1 to 9999 in seconds since 1970; numbers beyond, probably milliseconds by mistake, are refused."""


def seconds(value: str | float) -> float | None:
    """Seconds since 1970 UTC, from an ISO 8601 time (in UTC if it has no offset) or from such a number.

    None for anything else.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH).total_seconds()
        except ValueError:
            return None
    return float(value) if EARLIEST <= value <= LATEST else None


def moment(seconds: float) -> datetime:
    """The moment of a timestamp, seconds since 1970; LATEST, as a double, is just after the last that there is."""
    return _EPOCH + timedelta(seconds=min(seconds, _LAST_SECOND))


def instant(text: str) -> float:
    """Seconds since 1970 UTC; infinity for a text that is not a time, so that the bounds refuse it."""
    found = seconds(text)
    return math.inf if found is None else found


def instants(values: Sequence[str | float | None]) -> Array:
    """Seconds since 1970 UTC, FP64 [values]: as from `instant` for a text, a number as it is, NaN where missing."""
    if len(values) >= _MANY:
        try:
            return _alike(values)
        except (TypeError, ValueError):  # missing, numbers, or in other forms
            pass
    return np.array([instant(value) if isinstance(value, str) else value for value in values], np.float64)


def _alike(texts: Sequence[Any]) -> Array:
    """Seconds of whole seconds that are all written alike, many times faster. Raises TypeError or ValueError."""
    (size,) = {len(text) for text in texts}
    letters = np.frombuffer("".join(texts).encode("ascii"), np.uint8).reshape(len(texts), size)
    times, end = letters[:, : len(_LOWEST)], letters[:, len(_LOWEST) :]
    if end.shape[1] > 1 or (end != ord("Z")).any() or (times < _LOWEST).any() or (times > _HIGHEST).any():
        raise ValueError("times in another form")
    found = np.ascontiguousarray(times).view(f"S{len(_LOWEST)}")[:, 0].astype("datetime64[s]").astype(np.float64)
    if (found < EARLIEST).any():
        raise ValueError("no year 0")
    return found


def is_date(value: str) -> bool:
    """Whether a text is an ISO 8601 date, or the first moment of one in UTC."""
    found = seconds(value)
    return found is not None and found % DAY == 0


def date_of(moment: float) -> str:
    """The ISO 8601 date of a moment, seconds since 1970 UTC."""
    return (_EPOCH + timedelta(seconds=moment)).date().isoformat()
