"""`tabserve stream` from start to end: join the group, decide until a signal, commit, leave."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from typing import NamedTuple
from urllib.parse import quote

from confluent_kafka import KafkaError, KafkaException, Producer

from tabserve.bundle import BundleError
from tabserve.decision_log import opening
from tabserve.decision_log.entry import Log
from tabserve.inference import admin, memory
from tabserve.inference.admin import Heartbeat
from tabserve.inference.logs import tell
from tabserve.inference.metrics import Metrics
from tabserve.inference.rest.pages import liveness_pages, metrics_pages
from tabserve.inference.server import listen
from tabserve.scoring.scorer import Scorer
from tabserve.stream import clients
from tabserve.stream.clients import CALL_SECONDS, Link, Undone
from tabserve.stream.config import StreamConfig
from tabserve.stream.deciding import Deciding, Topics
from tabserve.stream.delivery import Delivery, Flushes, Transactions
from tabserve.stream.instruments import Instruments
from tabserve.stream.messages import Facts
from tabserve.stream.reading import Reader
from tabserve.stream.recording import recorder
from tabserve.stream.worker import Worker

STALLED_SECONDS = 300.0
"""How long a poll may take before the process is not live; Kafka itself expects a member back after so long."""

logger = logging.getLogger(__name__)


class Options(NamedTuple):
    """How one member runs. name: its own among the members. admin_port: of health and metrics; 0 for none."""

    name: str
    release: str
    host: str
    admin_port: int


def run(scorer: Scorer, config: StreamConfig, options: Options) -> None:
    """Decide until SIGTERM or SIGINT. Raises BundleError, OSError if the port is taken, and Ended."""
    stop, metrics = threading.Event(), Metrics()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    listener = listen(options.host, options.admin_port) if options.admin_port else None
    with _log(scorer, config, metrics) as log:
        _Stream(scorer, config, options, stop, metrics, log).run(listener)
    tell(logger, logging.INFO, "stopped", "stopped")


def _log(scorer: Scorer, config: StreamConfig, metrics: Metrics) -> AbstractContextManager[Log | None]:
    """The log of decisions, if there is to be one. Raises BundleError."""
    options = config.decision_log
    if options is None:
        return nullcontext()
    opening.verify(scorer.bundle, options.always, "decision_log.always")
    if options.buffer_rows < config.batch:
        problem = f"{options.buffer_rows} rows are less than are decided together"
        raise BundleError("decision_log.buffer_rows", problem, f"Set it to at least `batch`, {config.batch}.")
    return opening.open_log(scorer.bundle, options, metrics)


class _Stream:
    """The parts of one member, connected."""

    def __init__(
        self,
        scorer: Scorer,
        config: StreamConfig,
        options: Options,
        stop: threading.Event,
        metrics: Metrics,
        log: Log | None,
    ) -> None:
        self._config, self._stop, self._name = config, stop, options.name
        self._heart = Heartbeat(stalled_seconds=STALLED_SECONDS)
        self._link = Link(stop, self._heart)
        facts = _facts(scorer, config, options)
        self._release = facts.release
        self._producer = clients.producer(config, options.name)
        self._consumer = clients.consumer(config, options.name, self._link.failed)
        topics = Topics(config.target, config.dead, clients.most_bytes(config))
        self._deciding = Deciding(scorer, topics, facts, recording=log is not None)
        self._record = recorder(scorer, config, facts, log)
        self._reader = Reader(self._consumer, config, self._link)
        self._instruments = Instruments(metrics, _told(scorer, facts), lambda: self._reader.lag)
        self._pages = {**liveness_pages(self._is_ready, self._is_live), **metrics_pages(metrics.page)}

    def run(self, listener: socket.socket | None) -> None:
        """Decide until the end. Raises Ended."""
        tell(logger, logging.INFO, "reading", f"reading {self._config.source} as {self._name}", release=self._release)
        with admin.answering(listener, self._pages), closing(self._consumer), suppress(Undone):
            delivery = self._delivery()
            self._reader.start()
            memory.settle()
            worker = Worker(self._reader, self._deciding, delivery, self._link, self._instruments, self._record)
            worker.run(self._stop, self._heart)

    def _is_ready(self) -> bool:
        return self._reader.joined and not self._link.away and not self._stop.is_set()

    def _is_live(self) -> bool:
        return self._heart.live and not self._link.stuck

    def _delivery(self) -> Delivery:
        """What delivers, once the topics are there. Raises Ended, and Undone if the process is to end."""
        topics = (self._config.target, self._config.dead)
        partitions = {topic: _partitions(self._producer, topic, self._link) for topic in topics}
        kind = Transactions if self._config.delivery == "exactly-once" else Flushes
        delivery = kind(self._producer, self._consumer, self._link, partitions)
        delivery.start()
        return delivery


def _partitions(producer: Producer, topic: str, link: Link) -> int:
    """How many partitions a topic has; waits until it is there. Raises Undone if the process is to end."""

    def ask() -> int:
        try:
            found = producer.list_topics(topic, CALL_SECONDS).topics[topic]
        except KafkaException as error:
            problem = clients.problem_of(error)
            raise KafkaException(KafkaError(problem.code(), problem.str(), retriable=True)) from error
        if found.error is not None or not found.partitions:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"no topic {topic} yet", retriable=True))
        return len(found.partitions)

    return link.insist(ask)


def _facts(scorer: Scorer, config: StreamConfig, options: Options) -> Facts:
    source = config.event_source or f"/tabserve/{quote(scorer.bundle.manifest.name)}"
    return Facts(source, options.release or scorer.bundle.digest, scorer.bundle.digest)


def _told(scorer: Scorer, facts: Facts) -> dict[str, str]:
    manifest = scorer.bundle.manifest
    return {"name": manifest.name, "version": manifest.version, "digest": facts.digest, "release": facts.release}
