"""What comes from Kafka and goes to it, without a client: records, decisions, dead letters and their headers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from tabserve.schema.columns import Misfit

Headers: TypeAlias = list[tuple[str, str | bytes | None]]

DECISION = "tabserve.decision.v1"
"""CloudEvents' `type` of a decision."""
ENVELOPE_BYTES = 256
"""What a message may take besides its key, value and headers."""
_TRACE = ("traceparent", "tracestate")


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A message that was read. time: Kafka's, in seconds since 1970; NaN if it has none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    time: float

    @property
    def place(self) -> str:
        """What no other message has: topic, partition and offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A message to send. partition: that of the message which it answers, so that their order is kept."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def nbytes(self) -> int:
        """About how long it is."""
        named = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + named + 8 * len(self.headers) + ENVELOPE_BYTES


class Facts(NamedTuple):
    """What every message says. source: CloudEvents' own, a URI reference."""

    source: str
    release: str
    digest: str


def decision(topic: str, given: Incoming, value: bytes, place: str, identity: str, common: Headers) -> Outgoing:
    """The decision on a message, as a CloudEvent in binary mode.

    place: the message's. identity: of the record. common: the headers from `common_headers`.
    """
    headers = [*common, ("ce_id", place.encode()), ("ce_subject", identity.encode())]
    if given.headers:
        headers += [header for header in given.headers if header[0] in _TRACE]
    return Outgoing(topic, given.partition, given.key, value, headers)


def common_headers(facts: Facts, seconds: float) -> Headers:
    """The headers of all decisions that are made at a time, in seconds since 1970."""
    when = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", DECISION.encode()),
        ("ce_source", facts.source.encode()),
        ("ce_time", when.encode()),
        ("content-type", b"application/json"),
        ("tabserve_release", facts.release.encode()),
        ("tabserve_digest", facts.digest.encode()),
    ]


def dead_letter(topic: str, given: Incoming, reason: Misfit, facts: Facts, most_bytes: int) -> Outgoing:
    """A message that could not be decided, as it came, with the reason in further headers.

    most_bytes: how long it may be; what is too long is left out, and a header says so.
    """
    told = {
        "error": f"expected {reason.expected}, got {reason.got}",
        "field": reason.field,
        "expected": reason.expected,
        "got": reason.got,
        "place": given.place,
        "release": facts.release,
        "digest": facts.digest,
    }
    ours: Headers = [(f"tabserve_{name}", text.encode(errors="backslashreplace")) for name, text in told.items()]
    whole = Outgoing(topic, given.partition, given.key, given.value, [*given.headers, *ours])
    if whole.nbytes <= most_bytes:
        return whole
    return _cut(whole, ours, most_bytes)


def _cut(whole: Outgoing, ours: Headers, most_bytes: int) -> Outgoing:
    """The message without its value, and without its own headers and its key if it is still too long."""
    left_out = ("tabserve_left_out", f"a value of {len(whole.value or b'')} bytes".encode())
    without = replace(whole, value=None, headers=[*whole.headers, left_out])
    if without.nbytes <= most_bytes:
        return without
    left_out = ("tabserve_left_out", left_out[1] + b", the key and the message's own headers")
    return replace(without, key=None, headers=[*ours, left_out])


def ends(messages: Sequence[Incoming]) -> dict[tuple[str, int], int]:
    """The offset after the last message of each topic and partition."""
    return {(each.topic, each.partition): each.offset + 1 for each in messages}


def starts(messages: Sequence[Incoming]) -> dict[tuple[str, int], int]:
    """The offset of the first message of each topic and partition."""
    return {(each.topic, each.partition): each.offset for each in reversed(messages)}
