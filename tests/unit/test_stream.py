"""The stream without a broker: its file is refused with reasons, and every message becomes one message, in order."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka import Message, TopicPartition
from xgboost import XGBClassifier

from tabserve.bundle import BundleError
from tabserve.cli import main
from tabserve.decision_log.kafka_keys import resolved
from tabserve.inference.admin import Heartbeat
from tabserve.inference.errors import PredictionFailed
from tabserve.inference.metrics import Metrics
from tabserve.scoring import Scorer
from tabserve.stream import clients, config, messages
from tabserve.stream.deciding import Deciding, Poll, Topics
from tabserve.stream.instruments import Instruments
from tabserve.stream.messages import Facts, Headers, Incoming, Outgoing
from tabserve.stream.reading import Reader
from tests.unit.bundles import records, saved

GOOD = "bootstrap: broker:9092\ngroup: scorers\nin: payments\nout: decisions\ndead: dead\n"
FACTS = Facts("/tabserve/m", "r-7", "sha256:00")
BANDS = "  decision: {score: fraud, bands: [{from: 0.6, label: block}, {from: 0, label: accept}]}\n"


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("stream")
    model = XGBClassifier(n_estimators=5)
    return Scorer(saved(model, folder, fields=("amount", "income", "age"), extra=BANDS).path)


def values(count: int) -> list[dict[str, Any]]:
    frame = records()[["amount", "income", "age"]][:count]
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def incoming(
    *given: bytes | dict[str, Any] | None, key: bytes = b"k", headers: Headers | None = None
) -> list[Incoming]:
    """Messages of one partition, from offset 10 on."""
    texts = [json.dumps(each).encode() if isinstance(each, dict) else each for each in given]
    return [Incoming("payments", 3, 10 + at, key, text, headers or [], 1.5) for at, text in enumerate(texts)]


def decided(scorer: Scorer, given: list[Incoming], most_bytes: int = 10_000) -> Poll:
    return Deciding(scorer, Topics("decisions", "dead", most_bytes), FACTS, recording=False)(given, 1_800_000_000.25)


def named(message: Outgoing) -> dict[str, Any]:
    return dict(message.headers)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("group: scorers\n", ""), ":1:1: missing key group"),
        (GOOD + "delivery: twice\n", ':6:11: `delivery`: expected one of exactly-once, at-least-once, got "twice"'),
        (GOOD + "batch: 0\n", ":6:8: `batch`: expected int >= 1 (0)"),
        (GOOD + "bacth: 1\n", ":6:1: `bacth`: unknown key (did you mean `batch`?)"),
        (GOOD.replace("dead: dead", "dead: payments"), ":5:7: `dead`: expected another topic than `in`, got payments"),
        (GOOD + "kafka: {group.id: x}\n", ":6:19: `kafka.group.id`: this key is not to be set: set `group`"),
        (GOOD + "producer:\n  sasl.password: {file: a, env: B}\n", "expected either `file` or `env`"),
        (GOOD + "decision_log: {sample: 2, to: x}\n", "`decision_log.sample`: expected float <= 1.0 (2)"),
        ("- a\n", ":1:1: expected mapping, got array"),
        ("a: [\n", ":2:1: "),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "stream.yaml"
    path.write_text(text)
    with pytest.raises(config.ConfigError) as error:
        config.load(path)
    assert told in str(error.value)


def test_secrets_are_read_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("secret\n")
    monkeypatch.setenv("KAFKA_USER", "tabserve")
    path = tmp_path / "stream.yaml"
    keys = f"sasl.password: {{file: {tmp_path}/password}}, sasl.username: {{env: KAFKA_USER}}, a: true, b: 1.5"
    path.write_text(f"{GOOD}kafka: {{{keys}}}\n")
    found = resolved(config.load(path).kafka)
    assert found == {"sasl.password": "secret", "sasl.username": "tabserve", "a": "true", "b": "1.5"}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("{sasl.password: {file: /none}}", "sasl.password: /none cannot be read: No such file or directory."),
        ("{sasl.password: {env: TS_NONE}}", "sasl.password: the variable TS_NONE is not set. Set it."),
        ("{no.such.key: 1}", 'kafka: No such configuration property: "no.such.key".'),
        ("{security.protocol: none}", "kafka: Invalid value"),
    ],
)
def test_keys_that_the_client_does_not_take_are_refused(keys: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "stream.yaml"
    path.write_text(f"{GOOD}kafka: {keys}\n")
    with pytest.raises(BundleError) as error:
        clients.producer(config.load(path), "a")
    assert told in str(error.value)


def test_the_command_ends_with_the_reason(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "stream.yaml").write_text(GOOD + "batch: none\n")
    done = CliRunner().invoke(main, ["stream", str(scorer.bundle.path), "--config", str(tmp_path / "stream.yaml")])
    assert done.exit_code == 1
    assert "stream.yaml:6:8: `batch`: expected int, got str" in str(done.exception)


def test_a_decision_has_the_bits_of_score_and_says_what_it_is(scorer: Scorer) -> None:
    given = values(40)
    trace: Headers = [("traceparent", b"00-1-2-01"), ("other", b"x")]
    poll = decided(scorer, incoming(*given, headers=trace))
    assert poll.decided == 40
    assert [json.loads(each.value or b"") for each in poll.outgoing] == scorer.decide(given)
    first = poll.outgoing[0]
    assert (first.topic, first.partition, first.key) == ("decisions", 3, b"k")
    assert named(first) == {
        "ce_specversion": b"1.0",
        "ce_type": b"tabserve.decision.v1",
        "ce_source": b"/tabserve/m",
        "ce_time": b"2027-01-15T08:00:00.250Z",
        "ce_id": b"payments/3/10",
        "ce_subject": b"payments/3/10",
        "content-type": b"application/json",
        "tabserve_release": b"r-7",
        "tabserve_digest": b"sha256:00",
        "traceparent": b"00-1-2-01",
    }


POISON: dict[str, tuple[bytes | None, bytes]] = {
    "nothing": (None, b"got nothing"),
    "no JSON": (b"\xff\x00", b"got JSON is malformed"),
    "cut": (b'{"amount": 1', b"got Input data was truncated"),
    "no object": (b"[1]", b"got an array"),
    "deep": (b'{"amount":' + b"[" * 100_000, b"expected"),
    "missing": (b'{"amount": 1}', b"expected a number, got nothing"),
    "wrong": (b'{"amount": "x", "income": 1, "age": 20}', b'got "x"'),
    "misnamed": (b'{"amount": 1, "incone": 1, "age": 20}', b"got `incone` instead"),
}


@pytest.mark.parametrize("where", ["first", "last", "alone", "all"])
@pytest.mark.parametrize("kind", sorted(POISON))
def test_poison_is_a_dead_letter_in_its_place(scorer: Scorer, kind: str, where: str) -> None:
    value, reason = POISON[kind]
    good = values(3)
    kinds: dict[str, list[bytes | dict[str, Any] | None]] = {
        "first": [value, *good],
        "last": [*good, value],
        "alone": [value],
        "all": [value] * 3,
    }
    given = kinds[where]
    sent = incoming(*given, headers=[("of", b"theirs")])
    poll = decided(scorer, sent, most_bytes=1_000_000)
    assert [each.topic for each in poll.outgoing] == ["dead" if each == value else "decisions" for each in given]
    dead = [(one, was) for one, was in zip(poll.outgoing, sent, strict=True) if one.topic == "dead"]
    assert [(one.key, one.value, one.partition) for one, _ in dead] == [(b"k", value, 3)] * len(dead)
    for one, was in dead:
        assert reason in named(one)["tabserve_error"]
        assert named(one)["tabserve_place"] == was.place.encode()
        assert named(one)["of"] == b"theirs"


def test_other_keys_of_a_record_are_passed_over(scorer: Scorer) -> None:
    given = values(2)
    poll = decided(scorer, incoming(*({**each, "unrelated": [1, {"a": 2}]} for each in given)))
    assert [json.loads(each.value or b"") for each in poll.outgoing] == scorer.decide(given)


class Failing:
    """A scorer whose model fails on amounts above 100."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.bundle = scorer, scorer.bundle

    def sift(self, texts: list[bytes], *, recording: bool) -> Any:
        if any(json.loads(text)["amount"] > 100 for text in texts):
            raise PredictionFailed("the model answered with a score that is not a number")
        return self._scorer.sift(texts, recording=recording)


def test_a_record_that_the_model_fails_on_is_found_among_others(scorer: Scorer) -> None:
    given = [{**each, "amount": 101.0 if at in (0, 7, 8) else 5.0} for at, each in enumerate(values(13))]
    poll = decided(Failing(scorer), incoming(*given))  # type: ignore[arg-type]
    assert [at for at, each in enumerate(poll.outgoing) if each.topic == "dead"] == [0, 7, 8]
    assert b"not a number" in named(poll.outgoing[7])["tabserve_error"]
    expected = scorer.decide([each for each in given if each["amount"] < 100])
    assert [json.loads(each.value or b"") for each in poll.outgoing if each.topic != "dead"] == expected


def test_what_is_too_long_for_the_topic_is_left_out_and_told(scorer: Scorer) -> None:
    (long,) = decided(scorer, incoming(b"x" * 20_000)).outgoing
    assert (long.value, long.key) == (None, b"k")
    assert named(long)["tabserve_left_out"] == b"a value of 20000 bytes"
    (keyed,) = decided(scorer, incoming(values(1)[0], key=b"k" * 20_000)).outgoing
    assert (keyed.topic, keyed.value, keyed.key) == ("dead", None, None)
    assert b"the key" in named(keyed)["tabserve_left_out"]
    assert max(long.nbytes, keyed.nbytes) <= 10_000


def test_offsets_are_of_each_partition() -> None:
    given = [Incoming("t", partition, offset, None, None, [], 0.0) for partition, offset in [(0, 5), (1, 9), (0, 6)]]
    assert messages.starts(given) == {("t", 0): 5, ("t", 1): 9}
    assert messages.ends(given) == {("t", 0): 7, ("t", 1): 10}


def test_what_is_committed_is_counted(scorer: Scorer) -> None:
    metrics = Metrics()
    instruments = Instruments(metrics, {"name": "m"}, lambda: 12)
    poll = decided(scorer, incoming(*values(3), b"poison"))
    instruments.committed(poll, np.array([0.02, 0.02, 3.0, math.nan]))
    page = metrics.page().decode()
    for line in (
        'tabserve_stream_records_total{result="decided"} 3.0',
        'tabserve_stream_records_total{result="dead"} 1.0',
        "tabserve_stream_lag 12.0",
        'tabserve_stream_seconds_bucket{le="0.025"} 2.0',
        "tabserve_stream_seconds_count 3.0",
        'tabserve_model_info{name="m"} 1.0',
    ):
        assert line in page


class Moving:
    """A consumer that loses a partition in its second read. back: whether it gets it back at once, and reads on."""

    def __init__(self, back: bool) -> None:
        self._back, self._reads = back, 0

    def subscribe(self, _: list[str], on_assign: Any, on_revoke: Any) -> None:
        self._on_assign, self._on_revoke = on_assign, on_revoke
        on_assign(self, [TopicPartition("payments", 0)])

    def consume(self, count: int, _: float) -> list[Message]:
        self._reads += 1
        if self._reads == 1:
            assert count == 1
            return [Message(topic="payments", partition=0, offset=7)]
        self._on_revoke(self, [TopicPartition("payments", 0)])
        again = [Message(topic="payments", partition=0, offset=7)] if self._back else []
        return [*again, Message(topic="payments", partition=1, offset=4)]

    def assignment(self) -> list[TopicPartition]:
        return []


@pytest.mark.parametrize("back", [False, True])
def test_what_was_read_of_a_partition_that_is_lost_meanwhile_is_dropped(back: bool) -> None:
    stop = threading.Event()
    link = clients.Link(stop, Heartbeat())
    given = config.StreamConfig("b:1", "g", "payments", "out", "dead")
    reader = Reader(Moving(back), given, link)  # type: ignore[arg-type]
    reader.start()
    assert [(each.partition, each.offset) for each in reader.read()] == [*([(0, 7)] if back else []), (1, 4)]
