"""Users, each of which waits for an arrival, sends its request, checks the answer and records the latency."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import httptools
from locust import User, task

from tabserve_loadtest.answers import Answer, Checker
from tabserve_loadtest.calls import GrpcConnection
from tabserve_loadtest.dispatch import Arrival, Dispatch
from tabserve_loadtest.http import HttpConnection
from tabserve_loadtest.payloads import Payload
from tabserve_loadtest.recording import Outcome
from tabserve_loadtest.target import Kind, Target


class Work:
    """What the users of a process share in a phase: arrivals, requests, and answers found right."""

    def __init__(self, dispatch: Dispatch, target: Target, payloads: list[Payload]) -> None:
        self.dispatch = dispatch
        self.target = target
        self.payloads = payloads
        self.checker = Checker(target.kind)


class Caller(User):
    """A user of any kind. Every answer also goes into Locust's own statistics, under the kind's name."""

    abstract = True
    kind: ClassVar[Kind]
    work: ClassVar[Work]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connection: HttpConnection | GrpcConnection | None = None

    @task
    def serve(self) -> None:
        """Serve arrivals until the run ends."""
        while True:
            arrival = self.work.dispatch.take()
            try:
                self._serve(arrival)
            finally:
                self.work.dispatch.done()

    def _serve(self, arrival: Arrival) -> None:
        work = self.work
        index = arrival.number % len(work.payloads)
        payload = work.payloads[index]
        connection = self._connection or self._connect()
        sent = time.monotonic_ns()
        answer, problem = _ask(connection, payload.data)
        answered = time.monotonic_ns()
        outcome: Outcome = "ok"
        if answer is None:
            outcome = "timeout" if problem.startswith("timeout") else "failed"
        elif answer.refused:
            outcome, problem = "refused", answer.said
            work.dispatch.recording.counts["retry_after"] += "retry-after" in answer.headers
        elif answer.status != 200:
            outcome, problem = "failed", answer.said
        elif wrong := work.checker.problem(index, payload, answer):
            outcome, problem = "wrong", wrong
        self._record(arrival, sent, answered, outcome, answer.release if answer else "", payload.rows, problem)

    def _record(
        self, arrival: Arrival, sent: int, answered: int, outcome: Outcome, release: str, rows: int, problem: str
    ) -> None:
        recording = self.work.dispatch.recording
        second = (arrival.intended - arrival.origin) // 1_000_000_000
        latency, late = (answered - arrival.intended) // 1000, (sent - arrival.intended) // 1000
        recording.add(second, max(latency, 1), late, outcome, release, rows)
        if problem:
            recording.error(f"{outcome}: {problem}")
        self.environment.events.request.fire(
            request_type=self.kind,
            name="open loop",
            response_time=(answered - sent) / 1e6,
            response_length=0,
            exception=problem or None,
            context={},
        )

    def _connect(self) -> HttpConnection | GrpcConnection:
        target = self.work.target
        self._connection = GrpcConnection(target) if target.kind == "grpc" else HttpConnection(target)
        return self._connection


def _ask(connection: HttpConnection | GrpcConnection, request: bytes) -> tuple[Answer | None, str]:
    try:
        return connection.ask(request), ""
    except TimeoutError:
        return None, "timeout"
    except (OSError, httptools.HttpParserError) as error:
        return None, f"{type(error).__name__}: {error}"


class RestJson(Caller):
    """A user that sends V2 over REST, with tensors as JSON."""

    kind = "json"


class RestBinary(Caller):
    """A user that sends V2 over REST, with binary tensors."""

    kind = "binary"


class Grpc(Caller):
    """A user that sends V2 over gRPC, with raw tensors."""

    kind = "grpc"


class Records(Caller):
    """A user that sends V1 records, which are answered with decisions."""

    kind = "records"


KINDS: dict[Kind, type[Caller]] = {user.kind: user for user in (RestJson, RestBinary, Grpc, Records)}
