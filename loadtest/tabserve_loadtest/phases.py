"""The messages between the process in charge and the generators, the same for one and for several."""

from __future__ import annotations

from typing import Any

import msgspec

from tabserve_loadtest.payloads import Payload
from tabserve_loadtest.schedule import Process, Segment
from tabserve_loadtest.target import Target

PREPARE, READY, START, PROGRESS, RECORDED = "prepare", "ready", "begin", "progress", "recorded"
"""The messages' names; prepare and start go to the generators, the others come from them."""
BODY = "body"


class Phase(msgspec.Struct, frozen=True):
    """One stretch of load. Open loop: arrivals by the process and segments. Closed loop: `users` for `seconds`.

    index, count: which generator sends, out of how many.
    """

    segments: tuple[Segment, ...] = ()
    process: Process = "poisson"
    seed: int = 0
    users: int = 0
    seconds: float = 0.0
    index: int = 0
    count: int = 1


class Prepare(msgspec.Struct):
    """The next phase, and its requests if they are new."""

    phase: Phase
    target: Target
    payloads: list[Payload] | None


class Progress(msgspec.Struct):
    """The progress of a phase: requests, errors and late starts so far, and the last second's latencies in µs."""

    requests: int
    errors: int
    late: int
    p50: int
    p99: int


def pack(content: msgspec.Struct | bytes) -> dict[str, Any]:
    """A message in the form that Locust sends, a dict of msgpack's types."""
    return {BODY: content if isinstance(content, bytes) else msgspec.msgpack.encode(content)}
