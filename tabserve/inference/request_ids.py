"""What tells a request from all others: the id its client gave it, or one that is made."""

from __future__ import annotations

import re
import secrets
from itertools import count

REQUEST_ID = "x-request-id"
_FIT = re.compile(r"[!-~]{1,128}")
"""What may stand in a header, in metadata and in a line of a log."""


class RequestIds:
    """Ids of the requests of one server."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8)
        self._numbers = count()

    def of(self, given: str | None) -> str:
        """The one that was given, if it is fit to be handed on; else another one than all that were made before."""
        if given is not None and _FIT.fullmatch(given):
            return given
        return f"{self._start}-{next(self._numbers):x}"
