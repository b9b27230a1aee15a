"""What a decision log keeps and where, as a file or a service's settings say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from tabserve.decision_log.kafka_keys import Value
from tabserve.schema.misfits import Strict

_Positive = Annotated[int, Meta(ge=1)]


class Options(Strict, frozen=True, kw_only=True):
    """What a log keeps, how much of it waits, and when a file is finished.

    sample: the share of records that are kept, 0 to 1. always: decisions whose records are all kept.
    """

    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    always: tuple[str, ...] = ()
    buffer_rows: _Positive = 20_000
    buffer_bytes: _Positive = 32 * 2**20
    file_seconds: Annotated[float, Meta(gt=0)] = 60.0
    file_rows: _Positive = 100_000


class LogOptions(Options, frozen=True, kw_only=True):
    """A log, and where it is.

    to: a folder, a place in an object store, or kafka://BROKERS/TOPIC. hash_key_file: with the key for fields that are
    hashed. kafka: librdkafka's own keys.
    """

    to: Annotated[str, Meta(min_length=1)]
    hash_key_file: str = ""
    kafka: Mapping[str, Value] = {}
