"""The log: a line for each event, as text or JSON, and for a cause at most one in ten seconds."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

QUIET_SECONDS = 10.0
"""How long after a line no other one follows for the same cause."""

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure(level: str, form: str, service: str) -> None:
    """Log to standard error from now on. form: `json` or `text`. service: predictor or transformer.

    grpc's own log is off: it would print a stack trace for every client that goes away while its answer is sent. A
    model's failures are logged by the server, without the request.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(service) if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("grpc").setLevel(logging.CRITICAL)


def last_words(service: str, form: str, problem: str) -> str:
    """What a service prints when it ends because it cannot serve."""
    if form != "json":
        return f"{service}: {problem}"
    return _line(time.time(), "critical", service, "start_failed", problem, {})


class JsonLines(logging.Formatter):
    """Writes records as JSON objects, with `tell`'s event and fields in those that have them.

    Of an exception only its type and place are written, because its text might quote a request.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        fields = {"logger": record.name, **getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= {"exception": type(record.exc_info[1]).__name__, "at": place(record.exc_info[1])}
        event = getattr(record, "event", "other")
        return _line(record.created, record.levelname.lower(), self._service, event, record.getMessage(), fields)


def _line(seconds: float, level: str, service: str, event: str, message: str, fields: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    first = {"time": when, "level": level, "service": service, "event": event, "message": message}
    return json.dumps({**first, **fields}, default=str)


def place(error: BaseException) -> str:
    """Where an exception was raised: file and line."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"


def tell(logger: logging.Logger, level: int, event: str, message: str, **fields: Any) -> None:
    """Log what happened: a message for people, an event and fields for programs."""
    logger.log(level, "%s", message, extra={"event": event, "fields": fields})


class _Cause:
    """What was last told, and how many like it were not."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.left_out = 0
        self.last: tuple[logging.Logger, int, str, dict[str, Any]]


class Limited:
    """Tells of a cause once in QUIET_SECONDS, and afterwards how many times it was not told (`suppressed`).

    A cause is an event with a `cause` of its own, such as an address. Telling what is left out costs no log record.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._causes: dict[tuple[str, str], _Cause] = {}

    def tell(
        self, logger: logging.Logger, level: int, event: str, message: str, cause: str = "", **fields: Any
    ) -> None:
        """Log this now, or within QUIET_SECONDS together with others like it."""
        known = self._causes.get((event, cause))
        if known is None or known.until <= self._clock():
            self._tell((event, cause), (logger, level, message, fields), known.left_out if known else 0)
        else:
            known.left_out += 1
            known.last = (logger, level, message, fields)

    def tell_left_out(self) -> None:
        """Log what was left out and is due, and forget the causes that have gone quiet."""
        now = self._clock()
        for key, known in [*self._causes.items()]:
            if known.until <= now:
                del self._causes[key]
                if known.left_out:
                    self._tell(key, known.last, known.left_out - 1)

    def _tell(self, key: tuple[str, str], line: tuple[logging.Logger, int, str, dict[str, Any]], left_out: int) -> None:
        logger, level, message, fields = line
        self._causes[key] = _Cause(self._clock() + QUIET_SECONDS)
        if left_out:
            fields = {**fields, "suppressed": left_out}
            message = f"{message} ({left_out} more times since the last such line)"
        tell(logger, level, key[0], message, **fields)


limited = Limited()
"""What the whole process tells of: refusals, failures, addresses."""
