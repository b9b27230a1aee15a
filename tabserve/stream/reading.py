"""Read messages from Kafka, again where they were not committed, and say how many are waiting."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tabserve.stream.clients import Ended, Link, problem_of
from tabserve.stream.config import StreamConfig
from tabserve.stream.messages import Incoming

IDLE_SECONDS = 0.5
"""How long a read waits for a first message."""
LAG_SECONDS = 1.0
PROBE_SECONDS = 2.0


Place: TypeAlias = tuple[str, int]
"""A topic and a partition."""


class Reader:
    """Reads the messages of a topic as a member of a group.

    joined: whether the group has said which partitions are this member's, if any.
    """

    def __init__(self, consumer: Consumer, config: StreamConfig, link: Link) -> None:
        self._consumer, self._link = consumer, link
        self._topic, self._most, self._linger = config.source, config.batch, config.linger_ms / 1000
        self._next: dict[Place, int] = {}
        self._revoked: set[Place] = set()
        self._looked = -math.inf
        self.joined = False
        self.lag = 0

    def start(self) -> None:
        """Join the group."""

        def on_assign(_: Consumer, __: list[TopicPartition]) -> None:
            self.joined = True
            self._link.found()

        def on_revoke(_: Consumer, partitions: list[TopicPartition]) -> None:
            self._revoked |= _places(partitions)

        self._consumer.subscribe([self._topic], on_assign=on_assign, on_revoke=on_revoke)

    def read(self) -> list[Incoming]:
        """Messages, at most a batch; none if there are none for a while. Raises Ended."""
        given = []
        for message in self._consume():
            if (error := message.error()) is None:
                given.append(_incoming(message))
            else:
                self._note(error)
        if not given and self._link.away and self.joined:
            self._probe()
        self._look()
        return given

    def _consume(self) -> list[Message]:
        """Messages of partitions that are still this member's after the last of them was read."""
        first = self._consumer.consume(1, IDLE_SECONDS)
        if not first or self._most == 1:
            return first
        self._revoked.clear()
        more = self._consumer.consume(self._most - 1, self._linger)  # which drops by itself what is revoked meanwhile
        return [each for each in first if (each.topic(), each.partition()) not in self._revoked] + more

    def _note(self, error: KafkaError) -> None:
        """Take an error that came instead of a message. Raises Ended."""
        if error.fatal():
            raise Ended(str(error))
        self._link.lost(error)

    def _probe(self) -> None:
        """Ask whether the brokers answer, where there is nothing to read that would show it."""
        try:
            self._consumer.list_topics(self._topic, PROBE_SECONDS)
        except KafkaException as error:
            self._link.lost(problem_of(error))
        else:
            self._link.found()

    def committed(self, ends: Mapping[Place, int]) -> None:
        """Note what is committed."""
        self._next.update(ends)

    def rewind(self, starts: Mapping[Place, int]) -> None:
        """Read on from here again, in those partitions that are still this member's. Raises Ended."""
        try:
            for topic, partition in _places(self._consumer.assignment()) & starts.keys():
                self._consumer.seek(TopicPartition(topic, partition, starts[topic, partition]))
        except KafkaException as error:
            raise Ended(str(problem_of(error))) from error

    def _look(self) -> None:
        """Count now and then how many messages wait in this member's partitions."""
        now = time.monotonic()
        if now - self._looked < LAG_SECONDS:
            return
        self._looked = now
        mine = _places(self._consumer.assignment())
        self._next = {place: offset for place, offset in self._next.items() if place in mine}
        self.lag = sum(max(0, self._high(*place) - offset) for place, offset in self._next.items())

    def _high(self, topic: str, partition: int) -> int:
        """The offset after the last message that is known of."""
        found = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return found[1] if found else 0


def _places(partitions: Iterable[TopicPartition]) -> set[Place]:
    return {(each.topic, each.partition) for each in partitions}


def _incoming(message: Any) -> Incoming:
    """What a message without an error holds; only such a one is sure to have a place."""
    kind, at = message.timestamp()
    return Incoming(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        message.headers() or [],
        math.nan if kind == TIMESTAMP_NOT_AVAILABLE else at / 1000,
    )
