"""Decision records as JSON in a Kafka topic, one message each; needs the extra `stream`."""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import orjson
import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tabserve.bundle import BundleError
from tabserve.decision_log.files import Folder
from tabserve.decision_log.kafka_keys import Value, resolved
from tabserve.decision_log.record import BUNDLE, FORMAT, FORMAT_KEY

RECORD = "tabserve.decision-record.v1"
"""CloudEvents' `type` of a decision record."""
STORE_SECONDS = 5.0
"""How long one attempt to store records waits for the brokers."""
_MESSAGE_MS = 10_000
_PLACE = re.compile(r"kafka://(?P<bootstrap>[^/?#@]+)/(?P<topic>[A-Za-z0-9._-]{1,249})")
T = TypeVar("T")
_OWN = {"bootstrap.servers", "enable.idempotence", "transactional.id"}


def client(kind: Callable[..., T], keys: Mapping[str, Any], setting: str) -> T:
    """A client with librdkafka's keys, whose own logging is let through from warnings on.

    setting: what the keys come from. Raises BundleError for a key that is none.
    """
    try:
        return kind(keys, logger=logging.getLogger("kafka"))
    except KafkaException as error:
        told = "Its keys and their values are listed in librdkafka's CONFIGURATION.md."
        raise BundleError(setting, error.args[0].str(), told) from error


class KafkaOutputs:
    """Batches of records for a topic. to: kafka://BROKERS/TOPIC. keys: librdkafka's own."""

    at_once = True

    def __init__(self, to: str, keys: Mapping[str, Value]) -> None:
        """Raises BundleError if one of them cannot be used; a broker that does not answer is no error here."""
        found = _PLACE.fullmatch(to)
        if found is None:
            problem = "expected kafka://HOST:PORT/TOPIC, with commas between several brokers"
            raise BundleError(
                "decision_log", f"{problem}, got {to}", "Keys such as a password go into a file of their own."
            )
        if own := sorted(_OWN & keys.keys()):
            raise BundleError(
                "decision_log", f"the key {own[0]} is not to be set", "Name the brokers in the log's address."
            )
        self._topic = found["topic"]
        given = {"message.timeout.ms": str(_MESSAGE_MS), "queue.buffering.max.kbytes": "65536", **resolved(keys)}
        fixed = {"bootstrap.servers": found["bootstrap"], "enable.idempotence": "true"}
        self._producer = client(Producer, {**given, **fixed}, "decision_log")

    def open(self) -> None:
        """Nothing to do: the producer connects by itself."""

    def begin(self, folder: Folder, began: float) -> Batch:
        """A new batch."""
        return Batch(folder, began, self._producer, self._topic)


class Batch:
    """Records that are sent together. What the brokers have taken is not sent again."""

    def __init__(self, folder: Folder, began: float, producer: Producer, topic: str) -> None:
        self.folder, self.began = folder, began
        self.times, self.stored = array("d"), 0
        self._producer, self._topic = producer, topic
        self._records: list[tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]] = []
        self._unsent: list[int] = []
        self._error: KafkaError | None = None

    @property
    def rows(self) -> int:
        """How many records it holds."""
        return len(self.times)

    @property
    def nbytes(self) -> int:
        """How long they are."""
        return sum(len(value) for _, value, _ in self._records)

    def add(self, table: pa.Table, times: Sequence[float]) -> None:
        """Append records. times: when each was put."""
        common = _common(table.schema.metadata or {})
        for row in table.to_pylist():
            self._unsent.append(len(self._records))
            self._records.append((str(row["id"]).encode(), orjson.dumps(row), [*common, ("ce_id", _event(row))]))
        self.times.extend(times)

    def end(self) -> None:
        """Nothing to do: each record is a message of its own."""

    def store(self) -> None:
        """Send what the brokers do not have. Raises OSError if they have not taken all of it after a while."""
        self._error = None
        waiting, self._unsent = self._unsent, []
        for number in waiting:
            self._send(number)
        left = self._producer.flush(STORE_SECONDS)
        if self._unsent or left:
            raise OSError(str(self._error or f"{left} records are not taken yet by the brokers"))

    def abandon(self) -> None:
        """Forget what is not sent; what is on its way may still arrive."""
        self._producer.purge(in_queue=True, in_flight=False)
        self._producer.poll(0)

    def _send(self, number: int) -> None:
        key, value, headers = self._records[number]
        try:
            self._producer.produce(
                self._topic, value, key, on_delivery=partial(self._delivered, number), headers=headers
            )
        except BufferError:
            self._unsent.append(number)
        except KafkaException as error:
            self._delivered(number, error.args[0], None)

    def _delivered(self, number: int, error: KafkaError | None, _: Message | None) -> None:
        if error is None:
            self.stored += 1
        elif error.code() != KafkaError.MSG_SIZE_TOO_LARGE:  # which no attempt would change
            self._error = error
            self._unsent.append(number)


def _common(metadata: Mapping[bytes, bytes]) -> list[tuple[str, str | bytes | None]]:
    """The headers of all records of a bundle, in CloudEvents' binary mode. metadata: of the table."""
    named = orjson.loads(metadata.get(BUNDLE.encode(), b"{}"))
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", RECORD.encode()),
        ("ce_source", f"/tabserve/{named.get('name', '')}".encode()),
        ("content-type", b"application/json"),
        (FORMAT_KEY, metadata.get(FORMAT_KEY.encode(), str(FORMAT).encode())),
        (BUNDLE, metadata.get(BUNDLE.encode(), b"{}")),
    ]


def _event(row: Mapping[str, Any]) -> bytes:
    """What no other record has: the id, and when it was decided, because an id may be asked about again."""
    time = row.get("time")
    return f"{row['id']}/{time.isoformat() if isinstance(time, datetime) else ''}".encode()
