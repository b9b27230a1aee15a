"""Kafka's clients with the keys of a stream, and which of their errors mean what."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from tabserve.decision_log.kafka import client
from tabserve.decision_log.kafka_keys import resolved
from tabserve.inference.admin import Heartbeat
from tabserve.inference.logs import limited
from tabserve.stream.config import StreamConfig

CALL_SECONDS = 5.0
"""How long one call to a broker may take before it is made again."""
TRANSACTION_MS = 30_000
"""How long a transaction may stay open whose process was killed; records after it are not seen for so long."""
SOCKET_MS = 10_000
"""How long the producer waits for one answer; a call that it makes may ask several times, whatever its own time-out."""
RETRY_MS = "10"
"""How soon the producer asks again while the broker still ends the transaction before; nothing goes on meanwhile."""
LINGER_MS = "1"
"""How long the producer collects messages; the broker writes the first while the last are handed over."""
PATIENCE_SECONDS = 10.0
"""How long a call may take before the process is not ready."""
STUCK_SECONDS = 60.0
"""How long a call may take before the process is not live: librdkafka may never end one after a broker was away."""
PAUSE_SECONDS = 0.5
LOG_LEVEL = "2"
"""What librdkafka logs by itself: what is critical. It has a line for every attempt to connect, which is told once."""
MOST_BYTES = 1_000_000
"""librdkafka's own default for the longest message."""
_MOST_BYTES_KEY, _STRATEGY_KEY = "message.max.bytes", "partition.assignment.strategy"
_HELP = "Its keys and their values are listed in librdkafka's CONFIGURATION.md."

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Ended(Exception):
    """A client cannot go on; another process can, from what is committed."""


class Undone(Exception):
    """Nothing of what was read last is committed, so it has to be read again."""


class Link:
    """Whether the brokers answer, as far as is known; and calls to them, which are made again until they do.

    stop: set when the process is to end.
    """

    def __init__(self, stop: threading.Event, heart: Heartbeat) -> None:
        self._stop, self._heart = stop, heart
        self._away, self._told = True, False
        self._called = math.inf

    @property
    def away(self) -> bool:
        """Whether a call failed, or has not ended for too long; the clients give it up much later."""
        return self._away or time.monotonic() - self._called > PATIENCE_SECONDS

    @property
    def stuck(self) -> bool:
        """Whether a call has not ended for so long that only another process helps."""
        return time.monotonic() - self._called > STUCK_SECONDS

    def lost(self, error: KafkaError | str) -> None:
        """Note that a call failed."""
        self._away = self._told = True
        limited.tell(logger, logging.WARNING, "kafka_away", f"Kafka does not take or give records: {error}")

    def failed(self, error: KafkaError) -> None:
        """Take a client's error that is of no call; only that all brokers are away says something about records."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.lost(error)
        else:
            limited.tell(logger, logging.WARNING, "kafka_error", f"Kafka's client says: {error}")

    def found(self) -> None:
        """Note that a call succeeded."""
        if self._told:
            limited.tell(logger, logging.INFO, "kafka_back", "Kafka takes and gives records again")
        self._away = self._told = False

    def turn(self) -> None:
        """Note that the process is alive. Raises Undone if it is to end."""
        self._heart.beat()
        if self._stop.is_set():
            raise Undone("the process is to end")

    def insist(self, call: Callable[[], T]) -> T:
        """Make a call until the brokers answer. Raises its other errors, and Undone if the process is to end."""
        while True:
            try:
                return self.watch(call)
            except KafkaException as error:
                problem = problem_of(error)
                if problem.fatal() or problem.txn_requires_abort() or not problem.retriable():
                    raise
                self.lost(problem)
                if self._stop.wait(PAUSE_SECONDS):
                    raise Undone(str(problem)) from error

    def watch(self, call: Callable[[], T]) -> T:
        """Make a call; the process is not ready if it takes long. Raises its errors."""
        self._heart.beat()
        self._called = time.monotonic()
        try:
            return call()
        finally:
            self._called = math.inf


def problem_of(error: KafkaException) -> KafkaError:
    """What a client's exception holds."""
    problem = error.args[0]
    assert isinstance(problem, KafkaError)
    return problem


def consumer(config: StreamConfig, name: str, on_error: Callable[[KafkaError], None]) -> Consumer:
    """A consumer that commits nothing by itself. name: of the process. Raises BundleError for a key that is none."""
    given = {**resolved(config.kafka), **resolved(config.consumer)}
    strategy = {} if given.get("group.protocol") == "consumer" else {_STRATEGY_KEY: "cooperative-sticky"}
    keys = {
        "client.id": f"tabserve-{name}",
        "log_level": LOG_LEVEL,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": "10000",
        "queued.max.messages.kbytes": "16384",
        "fetch.queue.backoff.ms": "10",
        **strategy,
        **given,
        "bootstrap.servers": config.bootstrap,
        "group.id": config.group,
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "isolation.level": "read_committed",
        "error_cb": on_error,
    }
    return client(Consumer, keys, "kafka")


def producer(config: StreamConfig, name: str) -> Producer:
    """A producer that sends each message once and in order. name: of the process. Raises BundleError as `consumer`."""
    exactly = config.delivery == "exactly-once"
    transactional = {
        "transactional.id": f"{config.group}-{name}",
        "transaction.timeout.ms": str(TRANSACTION_MS),
    }
    keys = {
        "client.id": f"tabserve-{name}",
        "log_level": LOG_LEVEL,
        "queue.buffering.max.kbytes": "65536",
        "message.timeout.ms": str(TRANSACTION_MS),
        "socket.timeout.ms": str(SOCKET_MS),
        "retry.backoff.ms": RETRY_MS,
        "linger.ms": LINGER_MS,
        **(transactional if exactly else {}),
        **resolved(config.kafka),
        **resolved(config.producer),
        "bootstrap.servers": config.bootstrap,
        "enable.idempotence": "true",
    }
    return client(Producer, keys, "kafka")


def most_bytes(config: StreamConfig) -> int:
    """How long a message may be for a producer with these keys, which it has taken."""
    return int(resolved({**config.kafka, **config.producer}).get(_MOST_BYTES_KEY, MOST_BYTES))
