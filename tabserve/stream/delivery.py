"""Send decisions and commit offsets: all of a poll in one transaction, or the messages first and the offsets after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tabserve.stream.clients import CALL_SECONDS, PAUSE_SECONDS, Ended, Link, Undone, problem_of
from tabserve.stream.messages import Outgoing

Counts = Mapping[str, int]
"""How many partitions each topic has."""
Ends = Mapping[tuple[str, int], int]
"""The offset after the last message of each topic and partition."""


class Delivery(Protocol):
    """Makes decisions visible, and what they were made of done."""

    def start(self) -> None:
        """Prepare; called once. Raises Ended, and Undone if the process is to end."""

    def deliver(self, outgoing: Sequence[Outgoing], ends: Ends) -> None:
        """Send messages, and commit. Raises Ended, and Undone if nothing is committed."""


class Transactions:
    """Messages and offsets in one transaction, so that both are there or neither."""

    def __init__(self, producer: Producer, consumer: Consumer, link: Link, partitions: Counts) -> None:
        self._producer, self._consumer, self._link = producer, consumer, link
        self._send = partial(_send, producer, partitions, link)

    def start(self) -> None:
        """Abort what an earlier process of the same name has left open, and fence it."""
        try:
            self._link.insist(lambda: self._producer.init_transactions(CALL_SECONDS))
        except KafkaException as error:
            raise Ended(str(problem_of(error))) from error

    def deliver(self, outgoing: Sequence[Outgoing], ends: Ends) -> None:
        """Send messages and offsets. Raises Ended, and Undone where the transaction was aborted."""
        try:
            self._producer.begin_transaction()
            self._send(outgoing)
            self._send_offsets(ends)
            self._link.insist(lambda: self._producer.commit_transaction(CALL_SECONDS))
        except KafkaException as error:
            self._abort(problem_of(error))
            raise Undone(str(problem_of(error))) from error

    def _send_offsets(self, ends: Ends) -> None:
        """Raises Ended if no broker answers: librdkafka may never come back from a second attempt."""
        group = self._consumer.consumer_group_metadata()
        try:
            self._link.watch(lambda: self._producer.send_offsets_to_transaction(_partitions(ends), group, CALL_SECONDS))
        except KafkaException as error:
            problem = problem_of(error)
            if problem.retriable() and not problem.txn_requires_abort():
                raise Ended(str(problem)) from error
            raise

    def _abort(self, problem: KafkaError) -> None:
        """Raises Ended if the producer is fenced, or cannot go on for another reason."""
        if problem.fatal():
            raise Ended(str(problem))
        try:
            self._link.insist(lambda: self._producer.abort_transaction(CALL_SECONDS))
        except KafkaException as error:
            raise Ended(f"{problem}, and then {problem_of(error)}") from error


class Flushes:
    """Messages first, and the offsets once all of these are written; after a kill some are sent again."""

    def __init__(self, producer: Producer, consumer: Consumer, link: Link, partitions: Counts) -> None:
        self._producer, self._consumer, self._link = producer, consumer, link
        self._send = partial(_send, producer, partitions, link, on_delivery=self._delivered)
        self._failed: KafkaError | None = None

    def start(self) -> None:
        """Nothing to do."""

    def deliver(self, outgoing: Sequence[Outgoing], ends: Ends) -> None:
        """Send messages, then the offsets. Raises Ended, and Undone if a message or an offset was not taken."""
        self._failed = None
        try:
            self._send(outgoing)
            while self._producer.flush(CALL_SECONDS):
                self._link.turn()
            if self._failed is not None:
                raise KafkaException(self._failed)
            offsets = _partitions(ends)
            self._link.insist(lambda: self._consumer.commit(offsets=offsets, asynchronous=False))
        except KafkaException as error:
            problem = problem_of(error)
            raise (Ended if problem.fatal() else Undone)(str(problem)) from error

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed = error


def _send(
    producer: Producer,
    partitions: Counts,
    link: Link,
    outgoing: Sequence[Outgoing],
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
) -> None:
    """Hand messages to the producer, each for the partition that its own has here. Raises KafkaException and Undone."""
    for each in outgoing:
        partition = each.partition % partitions[each.topic]
        while True:
            try:
                # by position, which is faster: callback (as on_delivery), on_delivery, timestamp
                producer.produce(each.topic, each.value, each.key, partition, None, on_delivery, 0, each.headers)
                break
            except BufferError:  # it holds too many
                producer.poll(PAUSE_SECONDS)
                link.turn()
    producer.poll(0)


def _partitions(ends: Ends) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
