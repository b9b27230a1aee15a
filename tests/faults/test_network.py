"""A network that delays, cuts and resets (fault catalogue 31 and 32), and clients that vanish (30)."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tabserve_transformer.predictor_client.breaker import FAILURES_TO_OPEN
from tests.contract.target import Answer
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.faults.proxy import Proxy, proxied
from tests.serving import Service, running

pytestmark = pytest.mark.alone

TIMEOUT_SECONDS = 0.5
CLIENTS, VANISHING = 1000, 200
TCP_REPAIR = 19
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def proxy(quick_predictor: Service) -> Generator[Proxy]:
    """A proxy before the quick bundle's predictor."""
    with proxied(quick_predictor.http_port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def transformer(proxy: Proxy, quick_bundle: Path, logs: Path) -> Generator[Subject]:
    """A transformer that reaches its predictor through the proxy, and soon gives up."""
    host = (f"--predictor_host=127.0.0.1:{proxy.port}", f"--predictor_timeout={TIMEOUT_SECONDS}")
    with running("tabserve_transformer", f"--model_dir={quick_bundle}", *host, log=logs / "proxied.log") as service:
        yield Subject(service)


@pytest.fixture
def behind(transformer: Subject, proxy: Proxy) -> Generator[Subject]:
    """The transformer, which serves before the test and, once the proxy is healed, after it."""
    transformer.service.wait_for(lambda: ask(transformer).status == 200, "serving")
    yield transformer
    proxy.heal()
    transformer.service.wait_for(lambda: ask(transformer).status == 200, "serving again")
    transformer.assert_serves()


def ask(subject: Subject) -> Answer:
    """Ask for one answer."""
    return subject.target.infer(subject.payload.json())


def answered(predictor: Service) -> float:
    """How many requests the predictor has answered."""
    lines = [line for line in predictor.metrics().splitlines() if line.startswith("tabserve_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_31_a_slow_predictor_is_504_at_the_deadline_and_then_503_at_once(behind: Subject, proxy: Proxy) -> None:
    proxy.delay = 2.0
    found: list[tuple[int, float]] = []
    for _ in range(FAILURES_TO_OPEN):
        started = time.monotonic()
        found.append((ask(behind).status, time.monotonic() - started))
    opened = ask(behind)

    assert {status for status, _ in found} == {504}
    assert min(seconds for _, seconds in found) >= TIMEOUT_SECONDS
    assert max(seconds for _, seconds in found) < proxy.delay
    opened.assert_error(503, 503)
    assert int(opened.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("bytes_passed", [0, 40, 400])
def test_32_a_cut_answer_is_503_and_was_asked_for_once(
    behind: Subject, proxy: Proxy, quick_predictor: Service, bytes_passed: int
) -> None:
    proxy.reset()  # the next connection has passed nothing yet
    before = answered(quick_predictor)
    proxy.cut = bytes_passed
    ask(behind).assert_error(503, 503)
    assert answered(quick_predictor) == before + 1


def test_32_a_request_that_is_reset_unread_is_503_and_has_not_reached_the_predictor(
    behind: Subject, proxy: Proxy, quick_predictor: Service
) -> None:
    before = answered(quick_predictor)
    proxy.refuse = True
    ask(behind).assert_error(503, 503)
    assert answered(quick_predictor) == before


def test_32_an_answer_in_slices_is_whole(behind: Subject, proxy: Proxy) -> None:
    expected = ask(behind)
    proxy.slices = 1
    sliced = ask(behind)
    assert (sliced.status, sliced.body) == (200, expected.body)


def test_32_connections_that_were_reset_while_idle_cost_no_request(behind: Subject, proxy: Proxy) -> None:
    for _ in range(5):
        proxy.reset()
        assert ask(behind).status == 200


@pytest.fixture
def many_files() -> Generator[None]:
    """As many open files as are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may close a connection without telling the other side")
def test_30_a_thousand_idle_clients_and_vanished_ones_leave_nothing(logs: Path, many_files: None) -> None:
    with running("tests.echo", "--keep_alive=3", log=logs / "vanished.log") as service, ExitStack() as stack:
        process = psutil.Process(service.process.pid)
        before = process.num_fds()
        opened = [stack.enter_context(wire.connection(service.http_port)) for _ in range(CLIENTS)]
        for one in opened:
            wire.send(one, LIVE)
        assert {wire.answers(one)[0].status for one in opened} == {200}
        for one in opened[:VANISHING]:
            one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            one.close()
        Subject(service).assert_serves()
        service.wait_for(lambda: process.num_fds() <= before + 1, "as at the start")
        assert {wire.rest(one) for one in opened[VANISHING:]} == {b""}
