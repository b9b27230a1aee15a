"""The log of a service in trouble: what happened, as JSON, in few lines and without a value of a request."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tabserve.inference.logs import QUIET_SECONDS
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.faults.test_memory import LIMIT, MIB, send_on, unfinished
from tests.serving import Service, running, start

pytestmark = pytest.mark.alone

SECRET = "secret-4711"
PATH = "/v2/models/echo/infer"


def told(service: Service, event: str) -> list[dict[str, Any]]:
    """The lines about one kind of event."""
    return [line for line in service.told() if line["event"] == event]


@contextmanager
def echo(log: Path, *options: str) -> Generator[Service]:
    """An echo that logs JSON; at the end its log is short and has no value of a request."""
    started = time.monotonic()
    with running("tests.echo", "--log_format=json", *options, log=log) as service:
        yield service
        counts = Counter(line["event"] for line in service.told())
        assert max(counts.values()) <= 1 + (time.monotonic() - started) / QUIET_SECONDS, counts
        assert SECRET not in service.text()


def test_a_service_tells_that_it_serves_drains_and_stops(tmp_path: Path) -> None:
    with echo(tmp_path / "told.log", "--max_connections=9") as service:
        wire.ask(service.http_port, wire.post(f"/{SECRET}", "Content-Length: 0", f"X-Secret: {SECRET}"))
        assert service.terminate() == 0
        found = service.told()
    assert [line["event"] for line in found] == ["serving", "draining", "stopped"]
    assert {(line["level"], line["service"]) for line in found} == {("info", "echo")}
    assert (found[0]["http_port"], found[0]["max_connections"]) == (service.http_port, 9)


def test_too_many_requests_are_told_in_few_lines(tmp_path: Path) -> None:
    with echo(tmp_path / "overloaded.log", "--max_concurrency=1") as service, ExitStack() as stack:
        subject = Subject(service)
        message = subject.payload.message("echo")
        held = json.dumps({**subject.payload.json(), "parameters": {"hold": True}, "id": SECRET}).encode()
        opened = stack.enter_context(wire.connection(service.http_port))
        wire.send(opened, wire.post(PATH, f"Content-Length: {len(held)}", body=held))
        service.wait_metric("echo_held", 1)
        for _ in range(50):
            assert subject.target.refusal("ModelInfer", message).name == "UNAVAILABLE"
        assert told(service, "overloaded")[0]["most"] == 1


def test_too_many_connections_are_told_in_few_lines_with_what_limits_them(tmp_path: Path) -> None:
    with echo(tmp_path / "connections.log", "--max_connections=8") as service, ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(wire.connection(service.http_port))
        assert service.status("/v2/health/live") == 200
        (line,) = told(service, "connections_full")[:1]
        assert (line["most"], line["limit"]) == (8, "max_connections")


def test_few_open_files_are_told_as_what_limits_the_connections(tmp_path: Path) -> None:
    within = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    log = tmp_path / "descriptors.log"
    with running("tests.echo", "--log_format=json", log=log, within=within) as service, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(wire.connection(service.http_port))
        assert service.status("/v2/health/live") == 200
        assert told(service, "connections_full")[0]["limit"] == "descriptors"


def test_too_much_in_transit_is_told_in_few_lines(tmp_path: Path) -> None:
    with (
        echo(tmp_path / "full.log", f"--memory_limit_bytes={LIMIT}", "--max_rows=20000") as service,
        ExitStack() as stack,
    ):
        send_on(Subject(service), 20, unfinished(8 * MIB - 1), stack)
        service.wait_for(lambda: bool(told(service, "memory_full")), "told that memory is full")
        assert told(service, "memory_full")[0]["most_bytes"] < LIMIT


def test_a_failing_model_is_told_in_few_lines(tmp_path: Path) -> None:
    with running("tests.unit.failing", "--log_format=json", log=tmp_path / "failing.log") as service:
        value = {"inputs": [{"name": "error", "datatype": "BYTES", "shape": [1], "data": [SECRET]}]}
        body = json.dumps(value).encode()
        request = wire.post("/v2/models/failing/infer", f"Content-Length: {len(body)}", body=body)
        started = time.monotonic()
        assert wire.ask(service.http_port, request * 50, 50) == [500] * 50
        found = told(service, "prediction_failed")
        assert 1 <= len(found) <= 1 + (time.monotonic() - started) / QUIET_SECONDS
        assert found[0]["exception"] == "LookupError"
        assert SECRET not in service.text()


@pytest.mark.parametrize("module", ["tabserve_predictor", pytest.param("tabserve_transformer", marks=pytest.mark.long)])
def test_why_a_service_cannot_start_is_its_last_line(tmp_path: Path, module: str) -> None:
    options = [f"--model_dir={tmp_path}/none", "--log_format=json"]
    options += ["--predictor_host=127.0.0.1:9"] if module == "tabserve_transformer" else []
    service = start(module, *options, log=tmp_path / f"unstarted_{module}.log")
    assert service.ended(within=60)
    last = service.told()[-1]
    assert (service.process.returncode, last["event"], last["level"]) == (1, "start_failed", "critical")
    assert "not a bundle" in last["message"]
