"""The decision log in a real topic: every record counted, none slows a request, whatever the broker does."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.data.kafka import Broker, broker
from tests.data.log import asked, closed, counted, logging, wait_counted
from tests.serving import Service

pytestmark = pytest.mark.long
MODEL = "breast-cancer"
REQUESTS = 2_000
SMALL = ("--max_rows=500", "--decision_log_buffer_rows=500")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Generator[Broker]:
    with broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="module")
def record(bundle: Path) -> dict[str, Any]:
    return expected.record(bundles.load(bundle), 0)


def test_every_decided_record_is_in_the_topic_once(
    bundle: Path, predictor: Service, record: dict[str, Any], kafka: Broker, tmp_path: Path
) -> None:
    kafka.topics("log")
    (tmp_path / "kafka.yaml").write_text("kafka: {compression.type: zstd}\n")
    options = [f"--decision_log_kafka_file={tmp_path / 'kafka.yaml'}"]
    to = f"kafka://{kafka.address}/log"
    with logging(bundle, predictor, to, tmp_path / "transformer.log", *options) as service:
        assert asked(service, MODEL, [record] * 2, REQUESTS // 2) == {200}
        assert service.terminate() == 0
    assert closed(service) == {"written": REQUESTS, "sampled": 0, "dropped": 0, "failed": 0}
    messages = kafka.read("log", REQUESTS)
    rows = [json.loads(message.value() or b"") for message in messages]
    ids = {f"r{request}/{row}" for request in range(REQUESTS // 2) for row in range(2)}
    assert len(rows) == REQUESTS
    assert {row["id"] for row in rows} == ids
    assert {message.key() for message in messages} == {each.encode() for each in ids}
    (row,) = [row for row in rows if row["id"] == "r0/1"]
    assert row["record"] == record
    assert row["source"] == "online"
    assert row["time"].endswith("+00:00")
    headers = [dict(message.headers() or []) for message in messages]
    assert {each["ce_type"] for each in headers} == {b"tabserve.decision-record.v1"}
    assert len({each["ce_id"] for each in headers}) == REQUESTS


def test_a_broker_that_is_away_costs_records_and_no_request(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path
) -> None:
    with logging(bundle, predictor, "kafka://127.0.0.1:1/log", tmp_path / "transformer.log", *SMALL) as service:
        assert asked(service, MODEL, [record], REQUESTS) == {200}
        wait_counted(service, "dropped", 1)
        assert service.terminate() == 0
    counts = closed(service)
    assert counts["written"] == 0
    assert sum(counts.values()) == REQUESTS


def test_a_broker_that_comes_back_gets_what_was_kept(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path
) -> None:
    with broker(tmp_path / "kafka") as kafka:
        kafka.topics("log")
        kafka.kill()
        with logging(bundle, predictor, f"kafka://{kafka.address}/log", tmp_path / "transformer.log") as service:
            assert asked(service, MODEL, [record], REQUESTS) == {200}
            service.wait_for(lambda: "decision records, and tries again" in service.text(), "told")
            assert counted(service)["written"] == 0
            kafka.start()
            wait_counted(service, "written", REQUESTS)
            assert service.terminate() == 0
        assert closed(service) == {"written": REQUESTS, "sampled": 0, "dropped": 0, "failed": 0}
        assert len({message.key() for message in kafka.read("log", REQUESTS)}) == REQUESTS


def test_records_that_a_topic_does_not_take_are_counted_as_failed(
    bundle: Path, predictor: Service, record: dict[str, Any], kafka: Broker, tmp_path: Path
) -> None:
    kafka.topics("short", max_message_bytes="300")
    to = f"kafka://{kafka.address}/short"
    with logging(bundle, predictor, to, tmp_path / "transformer.log") as service:
        assert asked(service, MODEL, [record], 50) == {200}
        wait_counted(service, "failed", 50)
        assert service.terminate() == 0
    assert closed(service) == {"written": 0, "sampled": 0, "dropped": 0, "failed": 50}
