"""The stream on a real broker, under kills, rebalances and outages: no record is lost, none is decided twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Message

from tabserve.bundle import Bundle
from tests.data import payments
from tests.data.kafka import Broker, broker
from tests.data.log import logged
from tests.data.stream_at import POINTS
from tests.docs.blocks import Command, consoles, files
from tests.docs.test_pages import run
from tests.serving import ROOT, Service, free_port

pytestmark = pytest.mark.long
KILLS = int(os.environ.get("KILLS", "20"))
RECORDS = 20_000
COUNT = 20_000
EACH = 3_000
"""How many records are sent for each process that is killed, so that it has something to do."""
PARTITIONS = 4
QUICK = {"session.timeout.ms": 6000}
"""So that the group does not wait long for a member that was killed."""
AFTER_SECONDS = 600.0
MOST_MIB = 500


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return payments.bundle(tmp_path_factory.mktemp("payments"), trees=30, depth=4)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Generator[Broker]:
    with broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


class Stream:
    """A stream of its own topics, and its members."""

    def __init__(self, kafka: Broker, bundle: Bundle, folder: Path, **config: Any) -> None:
        self.kafka, self._bundle, self._folder = kafka, bundle, folder
        self.name = folder.name
        partitions = config.pop("partitions", PARTITIONS)
        kafka.topics(*(f"{self.name}.{each}" for each in ("in", "out", "dead")), partitions=partitions)
        self._config = folder / "stream.yaml"
        topics = {key: f"{self.name}.{key}" for key in ("in", "out", "dead")}
        given = {"bootstrap": kafka.address, "group": self.name, **topics, "batch": 100, "consumer": QUICK, **config}
        self._config.write_text(json.dumps(given))
        self.count = 0
        """How many records were sent."""

    def send(self, values: Sequence[bytes | None]) -> None:
        """Send records, each with its number as key."""
        self.kafka.send(f"{self.name}.in", [(str(at), value) for at, value in enumerate(values, self.count)])
        self.count += len(values)

    def start(self, name: str = "a", at: Sequence[str] = ()) -> Service:
        """A member. at: point, number and what happens there, for a client that does not work as it should."""
        module = ["tests.data.stream_at", *at] if at else ["tabserve.cli"]
        port = free_port()
        options = [f"--config={self._config}", f"--name={name}", "--host=127.0.0.1", f"--admin-port={port}"]
        log = self._folder / f"{name}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *module, "stream", str(self._bundle.path), *options],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Service(process, port, 0, port, log)

    @contextmanager
    def running(self, name: str = "a", at: Sequence[str] = ()) -> Generator[Service]:
        """A member that is killed when the block is left."""
        service = self.start(name, at)
        try:
            yield service
        finally:
            service.kill()

    def out(self, count: int) -> list[Message]:
        """The committed decisions, at least so many."""
        return self.kafka.read(f"{self.name}.out", count)

    def dead(self, count: int) -> list[Message]:
        """The dead letters, at least so many."""
        return self.kafka.read(f"{self.name}.dead", count)

    def committed(self) -> int:
        """How many records the group has done."""
        return sum(self.kafka.committed(self.name, f"{self.name}.in", range(PARTITIONS)).values())

    def sent(self) -> int:
        """How many messages of any kind are in the topic of decisions, whether committed or not."""
        return sum(self.kafka.ends(f"{self.name}.out").values())

    def verify(self) -> None:
        """Wait until all records are decided, and compare: each once, and in the order of its partition."""
        count = self.count
        found = self.out(count)
        keys = Counter((each.key() or b"").decode() for each in found)
        print(f"{self.name}: {count} records, {count - len(keys)} lost, {sum(keys.values()) - len(keys)} doubled")
        assert keys == Counter(map(str, range(count)))
        verify_order(found)


def place(message: Message) -> tuple[str, int, int]:
    """Where the record of a decision was."""
    topic, partition, offset = dict(message.headers() or [])["ce_id"].decode().rsplit("/", 2)  # type: ignore[union-attr]
    return topic, int(partition), int(offset)


def verify_order(found: Sequence[Message]) -> None:
    """Every decision is in its record's partition, in the order of the records."""
    for partition in range(PARTITIONS):
        mine = [place(each) for each in found if each.partition() == partition]
        assert {each[1] for each in mine} <= {partition}
        assert mine == sorted(mine)


def tabserve(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-P", "-m", "tabserve.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def texts(count: int) -> list[bytes]:
    """Payments as JSON."""
    return [json.dumps(each).encode() for each in payments.as_json(payments.records(count))]


@pytest.fixture
def stream(kafka: Broker, bundle: Bundle, tmp_path: Path) -> Stream:
    return Stream(kafka, bundle, tmp_path)


def test_kills_at_random_instants_lose_and_double_nothing(stream: Stream) -> None:
    instants, values = random.Random(34), texts(EACH)
    found = Counter[str]()
    for kill in range(KILLS):
        stream.send(values)
        point = (*POINTS, "any time")[kill % 4]
        at = () if point == "any time" else (point, str(instants.randint(1, 8)), "kill")
        with stream.running("a", at) as service:
            if at:
                assert service.ended(AFTER_SECONDS), service.text()
                assert service.process.returncode == -9, service.text()
            else:
                kill_while_sending(stream, service, instants)
        found[point] += 1
    print(f"kills: {dict(found)}")
    with stream.running("a") as service:
        stream.verify()
        assert service.terminate() == 0


def kill_while_sending(stream: Stream, service: Service, instants: random.Random) -> None:
    """Kill a member soon after it has begun to send."""
    before = stream.sent()
    service.wait_for(lambda: stream.sent() > before, "sending", AFTER_SECONDS)
    assert not service.ended(instants.uniform(0, 0.3))
    service.kill()


def test_at_least_once_loses_nothing_under_kills(kafka: Broker, bundle: Bundle, tmp_path: Path) -> None:
    stream = Stream(kafka, bundle, tmp_path, delivery="at-least-once")
    instants, values = random.Random(35), texts(EACH)
    for _ in range(4):
        stream.send(values)
        with stream.running("a") as service:
            kill_while_sending(stream, service, instants)
    with stream.running("a") as service:
        service.wait_for(lambda: stream.committed() == stream.count, "done", AFTER_SECONDS)
        found = stream.out(stream.count)
        assert service.terminate() == 0
    keys = Counter((each.key() or b"").decode() for each in found)
    print(f"at-least-once: {stream.count - len(keys)} lost, {sum(keys.values()) - len(keys)} doubled")
    assert len(keys) == len({place(each) for each in found}) == stream.count


@pytest.mark.parametrize("point", ["offsets", "commit"])
def test_a_rebalance_within_a_transaction(stream: Stream, tmp_path: Path, point: str) -> None:
    stream.send(texts(RECORDS))
    held = tmp_path / "held"
    with stream.running("a", (point, "20", str(held))) as first:
        first.wait_for(held.exists, "in a transaction", AFTER_SECONDS)
        with stream.running("b") as second:
            second.wait_for(lambda: "reading" in second.text(), "started")
            assert not second.ended(3.0)  # joins meanwhile
            held.unlink()
            second.wait_ready()
            stream.verify()
            assert second.terminate() == 0
        assert first.terminate() == 0


@pytest.mark.parametrize("point", ["offsets", "commit"])
def test_a_member_that_was_given_up_commits_nothing_twice(
    kafka: Broker, bundle: Bundle, tmp_path: Path, point: str
) -> None:
    """It is held in its transaction for longer than the group waits for it, while another member goes on."""
    impatient = {**QUICK, "max.poll.interval.ms": 6000}
    stream = Stream(kafka, bundle, tmp_path, consumer=impatient)
    stream.send(texts(RECORDS))
    held = tmp_path / "held"
    with ExitStack() as stack:
        first = stack.enter_context(stream.running("a", (point, "20", str(held))))
        first.wait_for(held.exists, "in a transaction", AFTER_SECONDS)
        second = stack.enter_context(stream.running("b"))
        second.wait_ready()
        assert not second.ended(10.0)  # has the partitions meanwhile, or waits for the transaction
        held.unlink()
        stream.verify()
        assert second.terminate() == 0
        assert first.ended(0.0) or first.terminate() in (0, 1)


def test_another_of_the_same_name_fences_the_first(stream: Stream) -> None:
    stream.send(texts(2_000))
    with stream.running("a") as first:
        stream.out(2_000)
        with stream.running("a") as second:
            second.wait_ready()
            stream.send(texts(2_000))
            assert first.ended(AFTER_SECONDS), first.text()
            assert first.process.returncode == 1
            assert "goes on from the last commit" in first.text()
            found = stream.out(4_000)
            assert len({place(each) for each in found}) == len(found) == 4_000
            assert second.terminate() == 0


def test_a_broker_that_is_killed_and_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    """The stream waits for it, or ends with 1 or is not live, as it may in a transaction; then it is started again."""
    with broker(tmp_path / "kafka") as kafka, ExitStack() as stack:
        stream, values = Stream(kafka, bundle, tmp_path), texts(EACH)
        service = stack.enter_context(stream.running("a"))
        service.wait_ready()
        for _ in range(2):
            before = stream.sent()
            stream.send(values)
            service.wait_for(lambda: stream.sent() > before, "sending", AFTER_SECONDS)  # noqa: B023 - ends here
            kafka.kill()
            end = time.monotonic() + AFTER_SECONDS
            while service.status("/v2/health/ready") == 200:
                assert time.monotonic() < end, service.text()
            if service.ended(60.0):
                assert service.process.returncode == 1, service.text()
                service = stack.enter_context(stream.running("a"))
                service.wait_live()
            assert service.status("/v2/health/ready") == 503
            kafka.start()
            service = ready_again(stack, stream, service)
        stream.verify()
        assert service.terminate() == 0


def ready_again(stack: ExitStack, stream: Stream, service: Service) -> Service:
    """The service once it is ready; if it has ended or is not live, then another, as Kubernetes does."""
    end = time.monotonic() + AFTER_SECONDS
    while service.status("/v2/health/ready") != 200:
        assert time.monotonic() < end, service.text()
        if service.ended(1.0) or service.status("/v2/health/live") != 200:
            print(f"{stream.name}: started again, having ended or not being live")
            service.kill()
            service = stack.enter_context(stream.running("a"))
            service.wait_live()
    return service


def test_a_stream_ends_within_seconds_while_the_broker_is_away(bundle: Bundle, tmp_path: Path) -> None:
    with broker(tmp_path / "kafka") as kafka:
        stream = Stream(kafka, bundle, tmp_path)
        with stream.running("a") as service:
            service.wait_ready()
            kafka.kill()
            service.wait_for(lambda: service.status("/v2/health/ready") == 503, "not ready", AFTER_SECONDS)
            started = time.monotonic()
            assert service.terminate() == 0
            assert time.monotonic() - started < 30


POISON = (b"no JSON", b'{"amount": "x"}', b"[]", None)


@pytest.mark.parametrize("where", ["first", "last", "alone", "all"])
def test_every_poison_is_a_dead_letter_with_its_reason(
    kafka: Broker, bundle: Bundle, tmp_path: Path, where: str
) -> None:
    stream = Stream(kafka, bundle, tmp_path, partitions=1)
    good = texts(300)
    kinds: dict[str, list[bytes | None]] = {
        "first": [*POISON, *good],
        "last": [*good, *POISON],
        "alone": [POISON[0]],
        "all": list(POISON) * 50,
    }
    given = kinds[where]
    stream.send(given)
    bad = {at for at, value in enumerate(given) if value in POISON}
    with stream.running("a") as service:
        dead = stream.dead(len(bad))
        out = stream.out(len(given) - len(bad))
        assert service.terminate() == 0
    assert sorted(int(each.key() or b"") for each in dead) == sorted(bad)
    assert sorted(int(each.key() or b"") for each in out) == sorted(set(range(len(given))) - bad)
    for letter in dead:
        headers: dict[str, Any] = dict(letter.headers() or [])
        assert letter.value() == given[int(letter.key() or b"")]
        assert headers["tabserve_error"].startswith(b"expected")
        assert headers["tabserve_place"] == f"{stream.name}.in/0/{int(letter.key() or b'')}".encode()


@pytest.mark.parametrize("two_engines", [False, True], ids=["payments", "two engines"])
def test_the_stream_decides_as_score_does(kafka: Broker, two_engines: bool, tmp_path: Path) -> None:
    bundle = payments.bundle(tmp_path / "bundle", two_engines=two_engines)
    frame = payments.records(COUNT)[[*bundle.schema.fields, "payment_id"]]
    lines = [json.dumps(each) for each in payments.as_json(frame)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    done = tabserve("score", bundle.path, tmp_path / "in.jsonl", tmp_path / "scored", "--format=parquet")
    assert done.returncode == 0, done.stderr
    (output,) = (tmp_path / "scored").glob("*.parquet")
    expected = {row["payment_id"]: row for row in pq.read_table(output).to_pylist()}

    stream = Stream(kafka, bundle, tmp_path, batch=4096, decision_log={"to": str(tmp_path / "log")})
    stream.send([line.encode() for line in lines])
    with stream.running("a") as service:
        found = [json.loads(each.value() or b"") for each in stream.out(COUNT)]
        assert service.resident_bytes() / 2**20 < MOST_MIB
        assert service.terminate() == 0
    assert len(found) == COUNT
    assert [{name: expected[one["payment_id"]][name] for name in one} for one in found] == found
    kept = logged(tmp_path / "log")
    assert {row["id"]: row["score"] for row in kept} == {one["payment_id"]: one["score"] for one in found}
    assert {row["source"].partition("#")[0] for row in kept} == {f"stream:{stream.name}.in"}
    replayed = tabserve("log", "replay", tmp_path / "log", "--bundle", bundle.path)
    assert replayed.returncode == 0, replayed.stdout


def test_what_docs_stream_md_shows(kafka: Broker, tmp_path: Path) -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("data.md", "stream.md")]
    address = {"127.0.0.1:9092": kafka.address}
    for name, content in [each for page in pages for each in files(page).items()]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content.replace("127.0.0.1:9092", kafka.address))
    kafka.topics("readings", "decisions", "readings-dead", partitions=1)
    run([Command("python train.py", "")], tmp_path, {})
    try:
        for block in consoles(pages[1]):
            run(block, tmp_path, address)
    finally:
        subprocess.run(["bash", "-c", "kill -9 $(cat stream.pid)"], cwd=tmp_path, capture_output=True)
