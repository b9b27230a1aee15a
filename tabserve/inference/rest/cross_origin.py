"""Let pages of other origins call the service from browsers (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabserve.inference.rest.application import Answer, Application
from tabserve.inference.rest.parser import Request

ANY = "*"
_ALLOWED = (
    b"access-control-allow-methods: GET, HEAD, POST\r\n"
    b"access-control-allow-headers: *, authorization\r\n"
    b"access-control-max-age: 600\r\n"
)


class CrossOriginApplication(Application):
    """An application that tells browsers which other origins may call it, and read all headers of its answers.

    It allows no cookies. origins: such as `https://app.example.com`, or `*` for all.
    """

    def __init__(self, origins: Sequence[str], *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def admit(self, request: Request, *, unplaced: bool) -> Answer | None:
        """As the application, but answer a browser that asks what it may send (a preflight)."""
        if request.method == b"OPTIONS" and b"access-control-request-method" in request.headers:
            lines = self._lines(request)
            return 200, lines + _ALLOWED if self._allows(request) else lines, b""
        return super().admit(request, unplaced=unplaced)

    def page(self, request: Request) -> Answer:
        """The answer to a request for a page."""
        return self._shared(super().page(request), request)

    def identified(self, answer: Answer, request: Request) -> Answer:
        """A route's answer."""
        return self._shared(super().identified(answer, request), request)

    def _shared(self, answer: Answer, request: Request) -> Answer:
        status, lines, body = answer
        return status, lines + self._lines(request), body

    def _allows(self, request: Request) -> bool:
        return self._any or request.headers.get(b"origin") in self._origins

    def _lines(self, request: Request) -> bytes:
        if self._any:
            return b"access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n"
        if not self._allows(request):
            return b"vary: origin\r\n"
        allowed = b"access-control-allow-origin: %b\r\naccess-control-expose-headers: *\r\nvary: origin\r\n"
        return allowed % request.headers[b"origin"]
