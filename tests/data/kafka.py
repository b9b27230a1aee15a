"""A real Kafka broker on this machine: KRaft, one node, from pinned jars; and what is in its topics."""

from __future__ import annotations

import hashlib
import subprocess
import time
import uuid
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.cluster.testbed.build import fill
from tests.cluster.testbed.places import cache
from tests.cluster.testbed.process import run
from tests.serving import free_port

PINS = Path(__file__).parent / "pins"
START_SECONDS = 120.0
READ_SECONDS = 120.0
HEAP = "-Xmx512m"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def jars() -> Path:
    """The folder of the broker's jars, which Maven's registry gives, and whose digests are pinned."""
    digest = hashlib.sha256(b"".join((PINS / name).read_bytes() for name in ("pom.xml", "jars.sha256"))).hexdigest()
    folder = cache() / "programs" / f"kafka-{digest[:12]}"
    fill(folder, _download)
    return folder


def _download(folder: Path) -> None:
    run("mvn", "-q", "-B", "-f", PINS / "pom.xml", _COPY, "-DincludeScope=runtime", f"-DoutputDirectory={folder}")
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jar")}
    pinned = [line.split() for line in (PINS / "jars.sha256").read_text().splitlines()]
    assert found == {name: digest for digest, name in pinned}, "other jars than those of jars.sha256"


_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


class Broker:
    """One broker, which keeps its data in a folder when it is killed and started again. host: where it listens."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._host, self.port = folder, host, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._properties = folder / "server.properties"
        places = {"host": host, "port": self.port, "controller": free_port(), "data": folder / "data"}
        self._properties.write_text(_PROPERTIES.format(**places))
        identity = str(uuid.uuid4())
        self._java("kafka.tools.StorageTool", "format", "-t", identity, "-c", str(self._properties)).check_returncode()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self._host}:{self.port}"

    def _command(self, program: str, *arguments: str) -> list[str]:
        return ["java", HEAP, "-XX:+UseSerialGC", "-cp", f"{jars()}/*", program, *arguments]

    def _java(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self._command(program, *arguments), capture_output=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "broker.log").open("ab") as log:
            command = self._command("kafka.Kafka", str(self._properties))
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "broker.log").read_text()
            assert time.monotonic() < end, "the broker does not answer"

    def kill(self) -> None:
        """Kill it, as if its machine were gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(KafkaException):
            return bool(self.admin().list_topics(timeout=1).brokers)
        return False

    def admin(self) -> AdminClient:
        """A client that makes topics."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def topics(self, *names: str, partitions: int = 4, **config: str) -> None:
        """Make topics."""
        made = [
            NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
            for name in names
        ]
        admin = self.admin()  # it must outlive its futures
        for future in admin.create_topics(made).values():
            future.result(START_SECONDS)

    def send(self, topic: str, messages: Iterable[tuple[str | None, bytes | None]], partition: int = -1) -> None:
        """Send keys and values."""
        producer = Producer({"bootstrap.servers": self.address, "queue.buffering.max.messages": 1_000_000})
        for key, value in messages:
            producer.produce(topic, value, key, partition)
        assert producer.flush(READ_SECONDS) == 0

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last message of each partition."""
        with closed(self._reader()) as consumer:
            partitions = consumer.list_topics(topic, START_SECONDS).topics[topic].partitions
            return {at: consumer.get_watermark_offsets(TopicPartition(topic, at), READ_SECONDS)[1] for at in partitions}

    def read(self, topic: str, count: int) -> list[Message]:
        """At least so many committed messages of a topic; those of a partition in their order."""
        found: list[Message] = []
        with closed(self._reader()) as consumer:
            partitions = consumer.list_topics(topic, START_SECONDS).topics[topic].partitions
            consumer.assign([TopicPartition(topic, at, 0) for at in partitions])
            end = time.monotonic() + READ_SECONDS
            while len(found) < count:
                found += [each for each in consumer.consume(10_000, 0.2) if each.error() is None]
                assert time.monotonic() < end, f"{topic}: {len(found)} of {count} messages"
            found += consumer.consume(10_000, 1.0)
        return found

    def committed(self, group: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The offsets that a group has committed."""
        with closed(self._reader(group)) as consumer:
            found = consumer.committed([TopicPartition(topic, at) for at in partitions], READ_SECONDS)
            return {each.partition: each.offset for each in found}

    def _reader(self, group: str = "tests") -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )


@contextmanager
def closed(consumer: Consumer) -> Generator[Consumer]:
    """Close a consumer when the block is left."""
    try:
        yield consumer
    finally:
        consumer.close()


@contextmanager
def broker(folder: Path, host: str = "127.0.0.1") -> Generator[Broker]:
    """A running broker, which is killed when the block is left."""
    made = Broker(folder, host)
    made.start()
    try:
        yield made
    finally:
        made.kill()
