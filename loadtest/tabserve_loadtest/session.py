"""Set up Locust's environment and runners: for a single process, one in charge of several, or one of these."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import gevent
import gevent.event
import httptools
from locust.env import Environment
from locust.runners import MasterRunner

from tabserve_loadtest import calls
from tabserve_loadtest.answers import UNREADABLE, Answer, Checker
from tabserve_loadtest.calls import GrpcConnection
from tabserve_loadtest.dispatch import Dispatch
from tabserve_loadtest.generator import Generator as Sender
from tabserve_loadtest.http import HttpConnection
from tabserve_loadtest.payloads import Payload
from tabserve_loadtest.stock import Stock
from tabserve_loadtest.target import Target, TargetError
from tabserve_loadtest.users import KINDS, Caller, Work

JOIN_SECONDS = 60.0
READY_SECONDS = 60.0
STOP_SECONDS = 10.0


class SessionError(Exception):
    """The generators can't be started; the message is for the user."""


@contextmanager
def alone(target: Target, users: int, stock: int = 0) -> Generator[Environment]:
    """A single process, which sends requests itself. stock: how many of Locust's own users to add."""
    environment = _environment(target, users, stock)
    environment.create_local_runner()
    Caller.work = Work(Dispatch(), target, [])
    Sender(environment, Caller.work.dispatch)
    with _started(environment, users + stock):
        yield environment


@contextmanager
def in_charge(target: Target, users: int, address: str, expected: int, workers: int) -> Generator[Environment]:
    """A process that lets others send. address: HOST:PORT to listen on. users: per worker. workers: started here."""
    host, _, port = address.rpartition(":")
    environment = _environment(target, users * expected, 0)
    environment.create_master_runner(host, int(port))
    command = [sys.executable, "-P", "-m", "tabserve_loadtest", "join", f"127.0.0.1:{port}"]
    processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(workers)]
    try:
        _wait_for_workers(environment, expected, processes)
        with _started(environment, users * expected):
            yield environment
    finally:
        _stop(processes)


def join(address: str) -> None:
    """Send requests for the process in charge at HOST:PORT until it says that the run is over."""
    host, _, port = address.rpartition(":")
    calls.initialize()
    environment = Environment(user_classes=[*KINDS.values()])
    runner = environment.create_worker_runner(host, int(port))
    Caller.work = Work(Dispatch(), Target("", "", "json"), [])
    Sender(environment, Caller.work.dispatch)
    runner.greenlet.join()


def learn(target: Target, payloads: Sequence[Payload]) -> None:
    """Ask the idle server for the answer to each payload without one, or just whether it answers at all.

    While it refuses, this waits. Raises TargetError.
    """
    connection = GrpcConnection(target) if target.kind == "grpc" else HttpConnection(target)
    checker = Checker(target.kind)
    unknown = [payload for payload in payloads if payload.expected is None]
    try:
        for payload in unknown or payloads[:1]:
            answer = _accepted(connection, payload.data)
            if payload.expected is None:
                if answer.status != 200:
                    raise TargetError(f"expected status 200 before the run, got {answer.status}: {answer.body[:200]!r}")
                payload.expected = checker.read(answer)
    except (OSError, httptools.HttpParserError) as error:
        raise TargetError(f"no answer from {target.grpc if target.kind == 'grpc' else target.url}: {error}") from None
    except UNREADABLE as error:
        raise TargetError(f"expected a V2 answer before the run: {type(error).__name__}: {error}") from None
    finally:
        connection.close()


def _accepted(connection: GrpcConnection | HttpConnection, request: bytes) -> Answer:
    end = time.monotonic() + READY_SECONDS
    while (answer := connection.ask(request)).refused and time.monotonic() < end:
        gevent.sleep(0.2)
    return answer


def _environment(target: Target, users: int, stock: int) -> Environment:
    calls.initialize()
    # It warns against starting users quickly, but here users cost nothing until an arrival wakes them.
    logging.getLogger("locust.runners").setLevel(logging.ERROR)
    user = KINDS[target.kind]
    user.fixed_count, Stock.fixed_count = users, stock
    return Environment(user_classes=[user, Stock] if stock else [user], host=target.url, stop_timeout=0)


@contextmanager
def _started(environment: Environment, users: int) -> Generator[None]:
    runner, spawned = environment.runner, gevent.event.Event()
    assert runner is not None
    environment.events.spawning_complete.add_listener(lambda **_: spawned.set())  # type: ignore[no-untyped-call]
    try:
        runner.start(users, spawn_rate=users)
        if not spawned.wait(JOIN_SECONDS):
            raise SessionError(f"the users did not start within {JOIN_SECONDS:.0f} s")
        yield
    finally:
        runner.quit()


def _wait_for_workers(environment: Environment, expected: int, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    runner, end = environment.runner, time.monotonic() + JOIN_SECONDS
    assert isinstance(runner, MasterRunner)
    while len(runner.clients.ready) < expected:
        if any(process.poll() is not None for process in processes):
            raise SessionError("a worker ended before the run; its last lines are above")
        if time.monotonic() > end:
            raise SessionError(
                f"expected {expected} workers within {JOIN_SECONDS:.0f} s, got {len(runner.clients.ready)}"
            )
        gevent.sleep(0.1)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
