"""A V2 server with a known distribution of latency: `python -m tests.loadtest.stub --port=N --law=constant:1.4`.

It measures itself: `GET /held` says for every request, in order, whether this project's generator sent it, and how
many microseconds it was held.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import random
import time
from collections.abc import Callable

import httptools

from tabserve_loadtest.alarm import Alarm
from tabserve_loadtest.payloads import USER_AGENT

METADATA = {
    "name": "stub",
    "versions": ["1"],
    "platform": "stub",
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
}


def law(text: str) -> Callable[[random.Random], float]:
    """A function that draws a latency in seconds, from `constant:MS` or `lognormal:MEDIAN_MS:SIGMA`."""
    name, *parts = text.split(":")
    if name == "constant":
        return lambda _: float(parts[0]) / 1000
    median, sigma = float(parts[0]) / 1000, float(parts[1])
    return lambda rng: median * rng.lognormvariate(0, sigma)


class Delay:
    """Runs functions at their time, to the microsecond; an event loop's own timers round to milliseconds."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._alarm = Alarm()
        asyncio.get_running_loop().add_reader(self._alarm.fileno(), self._run)

    def call_at(self, at: int, function: Callable[[], None]) -> None:
        """Run a function at a time of `time.monotonic_ns`."""
        heapq.heappush(self._due, (at, next(self._order), function))
        self._alarm.set(self._due[0][0])

    def _run(self) -> None:
        self._alarm.clear()
        while self._due and self._due[0][0] <= time.monotonic_ns():
            heapq.heappop(self._due)[2]()
        if self._due:
            self._alarm.set(self._due[0][0])


class Stub:
    """How the server answers; request number `stall_after` of this project's generator starts a stall."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.delay = Delay()
        self.draw = law(options.law)
        self.random = random.Random(7)
        self.held: list[tuple[bool, int]] = []
        self.ours = 0
        self.stall = (0, 0)
        self.waiting = 0

    def due(self, now: int, ours: bool) -> int:
        """When a request that came now is answered: after its latency, but not in a stall."""
        self.ours += ours
        if self.ours == self.options.stall_after and ours:
            self.stall = (now, now + int(self.options.stall * 1e9))
        start, end = self.stall
        at = now + int(self.draw(self.random) * 1e9)
        return max(at, end) if start <= at < end or start <= now < end else at

    def answer(self) -> tuple[int, object, str]:
        """Status, content and further headers of an inference."""
        if self.random.random() < self.options.failing:
            return 500, {"error": "prediction failed"}, ""
        value = 2.0 if self.random.random() < self.options.wrong else 1.0
        release = "canary" if self.random.random() < self.options.canary else "stable"
        outputs = [{"name": "y", "datatype": "FP64", "shape": [1], "data": [value]}]
        return 200, {"model_name": "stub", "outputs": outputs}, f"tabserve-predictor-release: {release}\r\n"


class Connection(asyncio.Protocol):
    """One client; its requests are answered one after the other."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._came = 0
        self._ours = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came = time.monotonic_ns()
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"user-agent":
            self._ours = value == USER_AGENT.encode()

    def on_message_complete(self) -> None:
        stub, path = self._stub, self._url.decode()
        if path == "/held":
            self._write(200, stub.held)
        elif path == "/v1/models":
            self._write(200, {"models": ["stub"]})
        elif not path.endswith("/infer"):
            self._write(200, METADATA)
        elif stub.waiting >= stub.options.places:
            self._write(503, {"error": "overloaded"}, "Retry-After: 1\r\n")
        else:
            stub.waiting += 1
            came = self._came
            stub.delay.call_at(stub.due(came, self._ours), lambda: self._infer(came))

    def _infer(self, came: int) -> None:
        stub = self._stub
        stub.waiting -= 1
        self._write(*stub.answer())
        stub.held.append((self._ours, (time.monotonic_ns() - came) // 1000))

    def _write(self, status: int, content: object, more: str = "") -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self._transport.write(head.encode() + body)


async def serve(options: argparse.Namespace) -> None:
    """Serve until killed."""
    stub = Stub(options)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stub), "127.0.0.1", options.http_port)
    await server.serve_forever()


def main() -> None:
    """Parse a tabserve service's options, if they matter, and the law, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--http_port", type=int)
    parser.add_argument("--grpc_port", type=int)
    parser.add_argument("--admin_port", type=int, help="not used: it has none")
    parser.add_argument("--law", default="constant:1")
    for name in ("stall", "failing", "wrong", "canary"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--stall_after", type=int, default=0)
    parser.add_argument("--places", type=int, default=10**6)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
