"""Identify requests, by the id that a client gave or by a new one."""

from __future__ import annotations

import re
import secrets
from itertools import count

from tabserve.inference.arms import ARM, SHADOW

REQUEST_ID = "x-request-id"
TRACE_HEADERS = ("traceparent", "tracestate", REQUEST_ID, ARM, SHADOW)
"""Headers, and gRPC metadata, that are passed on to whatever a request leads to."""
_FIT = re.compile(r"[!-~]{1,128}")
"""An id that may be in a header, in metadata and in a line of a log."""


class RequestIds:
    """Gives ids to the requests of one server."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8)
        self._numbers = count()

    def of(self, given: str | None) -> str:
        """The given id if it may be passed on, otherwise a new one."""
        if given is not None and _FIT.fullmatch(given):
            return given
        return f"{self._start}-{next(self._numbers):x}"
