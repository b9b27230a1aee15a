"""Timestamps and dates of a record: ISO 8601 or seconds since 1970, always UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DAY = 86_400.0
"""The seconds of a day."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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


def is_date(value: str) -> bool:
    """Whether a text is an ISO 8601 date, or the first moment of one in UTC."""
    instant = seconds(value)
    return instant is not None and instant % DAY == 0


def date_of(instant: float) -> str:
    """The ISO 8601 date of a moment, seconds since 1970 UTC."""
    return (_EPOCH + timedelta(seconds=instant)).date().isoformat()
