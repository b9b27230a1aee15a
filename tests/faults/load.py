"""Clients that send one request after the other, over REST and gRPC, and remember every answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import grpc

from tests.contract.payload import Payload

TIMEOUT_SECONDS = 30.0


@dataclass
class Tally:
    """The outcomes of all clients together: statuses, and anything else that happened, by its text."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    without_retry_after: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: str, seconds: float, retry_after: bool = True) -> None:
        """Add the outcome of one request."""
        with self.lock:
            self.counts[outcome] += 1
            self.slowest = max(self.slowest, seconds)
            self.without_retry_after += not retry_after

    @property
    def answered(self) -> int:
        """How many requests had a right answer."""
        return self.counts["200"] + self.counts["OK"]


def ask_rest(tally: Tally, ports: Sequence[int], path: str, payload: Payload) -> None:
    """Ask over a kept connection; when the server closes it after an answer, go on with the next port.

    A connection that can't be opened is not a failed request: a Service on a cluster sends nobody to a pod that is
    gone.
    """
    body, turn = json.dumps(payload.json()), 0
    while not tally.stop.is_set():
        with closing(http.client.HTTPConnection("127.0.0.1", ports[turn % len(ports)], TIMEOUT_SECONDS)) as connection:
            turn += 1
            try:
                connection.connect()
            except ConnectionRefusedError:
                tally.stop.wait(0.01)
                continue
            _ask_until_closed(tally, connection, path, body)


def _ask_until_closed(tally: Tally, connection: http.client.HTTPConnection, path: str, body: str) -> None:
    while not tally.stop.is_set():
        started = time.monotonic()
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            tally.add(repr(error), time.monotonic() - started)
            return
        refused_well = response.status != 503 or "Retry-After" in response.headers
        tally.add(str(response.status), time.monotonic() - started, refused_well)
        if response.will_close:
            return


def ask_grpc(tally: Tally, ports: Sequence[int], model: str, payload: Payload) -> None:
    """Ask over one channel to all the ports, of which gRPC uses the first that works."""
    message = payload.message(model).SerializeToString()
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    with grpc.insecure_channel(f"ipv4:{addresses}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        while not tally.stop.is_set():
            started = time.monotonic()
            outcome = _outcome(call, message)
            tally.add(outcome, time.monotonic() - started)


def _outcome(call: Callable[..., bytes], message: bytes) -> str:
    try:
        call(message, timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


@contextmanager
def clients(tally: Tally, *each: Callable[[], None]) -> Generator[None]:
    """Run every client in a thread until the block is left."""
    threads = [threading.Thread(target=client) for client in each]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        tally.stop.set()
        for thread in threads:
            thread.join()
