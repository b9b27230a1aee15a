"""The file that says which topics a stream reads and writes, and how: `stream.yaml` (docs/data.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from tabserve.decision_log.kafka_keys import Value, misfits
from tabserve.decision_log.options import LogOptions
from tabserve.schema import reading
from tabserve.schema.misfits import MisfitError, Misfits, Strict

Delivery: TypeAlias = Literal["exactly-once", "at-least-once"]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]

OWN = {
    "bootstrap.servers": "set `bootstrap`",
    "group.id": "set `group`",
    "group.instance.id": "a stream names its own",
    "enable.auto.commit": "offsets are committed with the decisions",
    "enable.auto.offset.store": "offsets are committed with the decisions",
    "enable.partition.eof": "the end of a partition is nothing to decide",
    "isolation.level": "only committed records are decided",
    "transactional.id": "it is made of `group` and the pod's name",
    "enable.idempotence": "set `delivery`",
}
"""The keys of librdkafka that a stream sets itself, and what to do instead."""


class StreamConfig(Strict, frozen=True, rename={"source": "in", "target": "out"}):
    """What a stream does.

    source, target, dead: topics of records, of decisions, and of what could not be decided. batch: how many records are
    decided together at most. linger_ms: how long records are waited for once there is one. event_source: CloudEvents'
    `source`; empty for one that is made of the model's name.
    kafka, consumer, producer: librdkafka's own keys, for both clients and for one.
    """

    bootstrap: Text
    group: Text
    source: Text
    target: Text
    dead: Text
    delivery: Delivery = "exactly-once"
    batch: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    linger_ms: Annotated[float, Meta(ge=0, le=10_000)] = 1.0
    event_source: str = ""
    kafka: Mapping[str, Value] = {}
    consumer: Mapping[str, Value] = {}
    producer: Mapping[str, Value] = {}
    decision_log: LogOptions | None = None

    def _misfits(self) -> Misfits:
        for name in ("target", "dead"):
            if getattr(self, name) == self.source:
                key = "out" if name == "target" else name
                yield MisfitError(f"expected another topic than `in`, got {self.source}", key)
        for name in ("kafka", "consumer", "producer"):
            yield from misfits(getattr(self, name), name, OWN)


class ConfigError(ValueError):
    """A stream's file cannot be used; the message says where, what was expected, and what there is."""


def load(path: Path) -> StreamConfig:
    """The config in a file. Raises ConfigError, and OSError where the file cannot be read."""
    try:
        return reading.parse_as(StreamConfig, path.read_text("utf-8"), str(path))
    except reading.SchemaError as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8, got {error.reason} at byte {error.start}") from error
