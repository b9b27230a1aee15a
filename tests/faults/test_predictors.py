"""Predictors that are stopped, killed and come back: what the transformer says of itself, and who waits."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tabserve.inference.logs import QUIET_SECONDS
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.faults.load import Tally, ask_rest, clients
from tests.serving import Service, free_port, running, start

pytestmark = pytest.mark.alone

NAME, HOSTS = "pair.test", "127.0.0.1 localhost\n127.0.0.1 pair.test\n127.0.0.2 pair.test\n"
MOUNT = 'mount --bind "$0" /etc/hosts && exec "$@"'
CLIENTS, MANY = 4, 200
FALLS_SECONDS, SLACK_SECONDS = 2.0, 4.0
SECRET = "secret-4711"
JSON_LOG = "--log_format=json"
KILLED = pytest.param(signal.SIGKILL, id="killed", marks=pytest.mark.long)
ENDS = pytest.mark.parametrize("end", [pytest.param(signal.SIGSTOP, id="stopped"), KILLED])


def events(service: Service) -> list[str]:
    """The events in the log, of which every line is JSON."""
    return [line["event"] for line in service.told()]


def told(service: Service, event: str, **fields: Any) -> bool:
    """Whether an event with these fields was logged."""
    return any(line["event"] == event and fields.items() <= line.items() for line in service.told())


def wait_told(service: Service, event: str, **fields: Any) -> None:
    service.wait_for(lambda: told(service, event, **fields), f"told {event} {fields}")


def assert_few_lines(service: Service, since: float) -> None:
    """Assert that no cause was told more often than once in ten seconds, and no value of a request at all."""
    counts = Counter((line["event"], line.get("address")) for line in service.told())
    assert max(counts.values()) <= 1 + (time.monotonic() - since) / QUIET_SECONDS, counts
    assert SECRET not in service.text()


@contextmanager
def transforming(bundle: Path, host: str, log: Path, within: Sequence[str] = ()) -> Generator[Service]:
    options = (f"--model_dir={bundle}", f"--predictor_host={host}", "--predictor_timeout=2", JSON_LOG)
    with running("tabserve_transformer", *options, log=log, within=within) as service:
        yield service


def seconds_until_unready(service: Service) -> float:
    started = time.monotonic()
    service.wait_for(lambda: service.status("/v2/health/ready") == 503, "not ready")
    return time.monotonic() - started


@ENDS
def test_without_a_predictor_that_answers_it_is_not_ready_within_two_seconds(
    quick_bundle: Path, tmp_path: Path, end: signal.Signals
) -> None:
    began = time.monotonic()
    model, log, port = f"--model_dir={quick_bundle}", tmp_path / "predictor.log", free_port()
    with (
        running("tabserve_predictor", model, log=log, http_port=port) as predictor,
        transforming(quick_bundle, f"127.0.0.1:{port}", tmp_path / "transformer.log") as transformer,
    ):
        subject = Subject(transformer)
        predictor.signal(end)
        assert seconds_until_unready(transformer) < FALLS_SECONDS + SLACK_SECONDS
        assert not subject.target.call("ServerReady").ready
        assert transformer.status("/v2/health/live") == 200
        transformer.wait_metric("tabserve_predictors_ready", 0)
        body = json.dumps({**subject.payload.json(), "id": SECRET}).encode()
        infer = wire.post(f"{subject.target.path}/infer", f"Content-Length: {len(body)}", f"X-Request-Id: {SECRET}")
        assert wire.ask(transformer.http_port, infer + body) == [504 if end == signal.SIGSTOP else 503]
        wait_told(transformer, "predictor_gone")
        wait_told(transformer, "address_hung" if end == signal.SIGSTOP else "address_lost")

        predictor.signal(signal.SIGCONT)
        back = start("tabserve_predictor", model, log=log, http_port=port) if end == signal.SIGKILL else predictor
        try:
            transformer.wait_ready()
            transformer.wait_metric("tabserve_predictors_ready", 1)
            wait_told(transformer, "predictor_back")
            transformer.wait_for(lambda: subject.target.infer(subject.payload.json()).status == 200, "serving again")
        finally:
            back.kill()
        overall = [event for event in events(transformer) if event in ("predictor_found", "predictor_back")]
        assert overall[-1] == "predictor_back"
        assert_few_lines(transformer, began)


@pytest.fixture
def two_hosts(tmp_path: Path) -> Sequence[str]:
    """The command for a process for which one name has two addresses, as that of a headless Service."""
    hosts = tmp_path / "hosts"
    hosts.write_text(HOSTS)
    command = ("unshare", "-rm", "sh", "-c", MOUNT, str(hosts))
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    return command


@contextmanager
def predicting(bundle: Path, folder: Path) -> Generator[tuple[Service, Service]]:
    """Two predictors, at two addresses with the same port."""
    model, port = f"--model_dir={bundle}", free_port()
    with running("tabserve_predictor", model, log=folder / "first.log", http_port=port) as first:
        second = start("tabserve_predictor", model, "--host=127.0.0.2", log=folder / "second.log", http_port=port)
        try:
            yield first, second
        finally:
            second.kill()


@ENDS
def test_with_one_of_two_predictors_gone_the_other_answers(
    quick_bundle: Path, tmp_path: Path, two_hosts: Sequence[str], end: signal.Signals
) -> None:
    began = time.monotonic()
    with (
        predicting(quick_bundle, tmp_path) as (first, _),
        transforming(quick_bundle, f"{NAME}:{first.http_port}", tmp_path / "log", two_hosts) as transformer,
    ):
        one, other = f"127.0.0.1:{first.http_port}", f"127.0.0.2:{first.http_port}"
        wait_told(transformer, "address_ready", address=one)
        wait_told(transformer, "address_ready", address=other)
        subject, tally = Subject(transformer), Tally()
        ask = partial(ask_rest, tally, [transformer.http_port], f"{subject.target.path}/infer", subject.payload)
        with clients(tally, *[ask] * CLIENTS):
            answered_more(transformer, tally)
            gone = time.monotonic()
            first.signal(end)
            wait_told(transformer, "address_hung" if end == signal.SIGSTOP else "address_lost", address=one)
            answered_more(transformer, tally)
            assert transformer.status("/v2/health/ready") == 200
            transformer.wait_metric("tabserve_predictors_ready", 1)
            lost = time.monotonic() - gone
            first.signal(signal.SIGCONT)
        assert tally.counts.keys() <= {"200", "503", "504"}, tally.counts
        assert tally.counts["503"] + tally.counts["504"] <= CLIENTS + lost, tally.counts
        assert not told(transformer, "predictor_gone")
        assert not told(transformer, "address_lost", address=other)
        assert_few_lines(transformer, began)


def requests(predictor: Service) -> float:
    """How many requests a predictor has answered."""
    found = [line for line in predictor.metrics().splitlines() if line.startswith("tabserve_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def answered_more(service: Service, tally: Tally) -> None:
    """Wait until MANY more requests have had a right answer."""
    goal = tally.answered + MANY
    service.wait_for(lambda: tally.answered >= goal, f"asked {MANY} times more, {dict(tally.counts)}")


@pytest.mark.long
def test_a_predictor_that_goes_on_gets_requests_again(
    quick_bundle: Path, tmp_path: Path, two_hosts: Sequence[str]
) -> None:
    with (
        predicting(quick_bundle, tmp_path) as (first, _),
        transforming(quick_bundle, f"{NAME}:{first.http_port}", tmp_path / "log", two_hosts) as transformer,
    ):
        one = f"127.0.0.1:{first.http_port}"
        wait_told(transformer, "address_ready", address=one)
        first.signal(signal.SIGSTOP)
        wait_told(transformer, "address_hung", address=one)
        first.signal(signal.SIGCONT)
        subject = Subject(transformer)
        before = requests(first)
        transformer.wait_for(
            lambda: subject.target.infer(subject.payload.json()).status == 200 and requests(first) > before,
            "asking the first again",
        )
