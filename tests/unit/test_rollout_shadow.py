"""Copies of requests are answered at once, both slots are asked the same, and a slot that hangs costs only copies."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_connection, create_server
from threading import Event, Thread
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tabserve.client.errors import ServiceError
from tabserve.rollout import receiver
from tabserve.rollout.compare import Copies
from tabserve.rollout.shadow import MOST_WAITING, WORKERS, Rate, Shadow
from tests.serving import POLL_SECONDS, Service
from tests.unit.test_client import MODEL, PATIENTS

PREDICT = f"/v1/models/{MODEL}:predict"
INFER = f"/v2/models/{MODEL}/infer"
WAIT_SECONDS = 60.0


@contextmanager
def shadowing(stable: str, canary: str, **options: Any) -> Iterator[Shadow]:
    options.setdefault("per_second", 1e6)
    shadow = Shadow(stable, canary, **options)
    shadow.start(0, "127.0.0.1")
    try:
        yield shadow
    finally:
        shadow.stop()


def until(shadow: Shadow, condition: Callable[[Copies], bool]) -> Copies:
    """What was counted once the condition holds."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition(found := shadow.copies()):
        assert time.monotonic() < end, found
        Event().wait(POLL_SECONDS)
    return found


def send(shadow: Shadow, *bodies: bytes | list[bytes], path: str = PREDICT, **headers: str) -> None:
    """Mirror requests as a gateway does, on one connection; each is answered."""
    with closing(HTTPConnection("127.0.0.1", shadow.port, timeout=30)) as connection:
        for body in bodies:
            given = {"content-type": "application/json"} | {name.replace("_", "-"): headers[name] for name in headers}
            connection.request("POST", path, body, given, encode_chunked=not isinstance(body, bytes))
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"")


def records(*rows: dict[str, float]) -> bytes:
    return json.dumps({"instances": rows}).encode()


class Scripted(BaseHTTPRequestHandler):
    """Answers V1 for each record as its `answer` says: a decision, or a status for the whole request."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]]

    def do_POST(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        given = [row["answer"] for row in json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]]
        failed = [answer for answer in given if isinstance(answer, int)]
        body = json.dumps({"predictions": [{"decision": answer, "score": 0.5} for answer in given]}).encode()
        self.send_response(failed[0] if failed else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Generator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """A slot's URL, and what it was asked."""
    seen: list[tuple[str, dict[str, str]]] = []
    handler = type("Handler", (Scripted,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()


def answered(*answers: str | int) -> bytes:
    return json.dumps({"instances": [{"answer": answer} for answer in answers]}).encode()


def shadows(service: Service) -> Counter[str]:
    """How many copies a service has answered, by protocol."""
    families = text_string_to_metric_families(service.metrics())
    samples = [sample for family in families for sample in family.samples if sample.name == "tabserve_requests_total"]
    copies = [sample for sample in samples if sample.labels["arm"] == "shadow"]
    return Counter(sample.labels["protocol"] for sample in copies for _ in range(int(sample.value)))


def test_services_answer_copies_of_every_form_and_agree_with_themselves(transformer: Service) -> None:
    columns = {"name": "radius", "datatype": "FP64", "shape": [1], "data": [25.38]}
    inputs = [{**columns, "name": name, "data": [value]} for name, value in PATIENTS[0].items()]
    asked = json.dumps({"inputs": inputs}).encode()
    binary = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    before = shadows(transformer)
    with shadowing(transformer.url, transformer.url) as shadow:
        send(shadow, records(*PATIENTS), [b'{"instances":', b"[]}"], x_request_id="q-1")
        send(shadow, asked, binary, path=INFER)
        send(shadow, records({"radius": 1.0}))
        found = until(shadow, lambda found: found.asked == 5)
    after = shadows(transformer)

    assert (found.received, found.pairs, found.decided, found.rows) == (5, 3, 3, 5)
    assert (found.different_rows, found.deltas[0], found.flips) == (0, 3, {})
    assert (found.incomparable, found.failed) == (1, 1)
    assert sum(found.stable_seconds) == sum(found.canary_seconds) == 4
    assert after - before == {"v1": 6, "rest": 4}


def test_flips_and_refusals_are_counted_by_slot(transformer: Service, scripted: Any) -> None:
    url, seen = scripted
    with shadowing(url, f"{url}/b") as shadow:
        send(shadow, answered("accept"), answered(400), answered(503), x_request_id="q-1")
        until(shadow, lambda found: found.asked == 3)
    with shadowing(transformer.url, url) as other:
        send(other, records(PATIENTS[0]))
        unlike = until(other, lambda found: found.asked == 1)

    assert (shadow.copies().pairs, shadow.copies().failed) == (1, 2)
    assert {path for path, _ in seen} == {PREDICT, f"/b{PREDICT}"}
    assert (unlike.canary_failed, unlike.pairs) == (1, 0)


def test_a_copy_is_passed_on_as_it_came_but_for_its_arm_and_time(scripted: Any) -> None:
    url, seen = scripted
    sent = {"x_request_id": "q-1", "x_on_error": "record", "authorization": "Bearer t", "tabserve_arm": "forced"}
    with shadowing(url, url, timeout=2.5) as shadow:
        send(shadow, answered("accept"), **sent, x_request_timeout_ms="1", traceparent="00-1-1-01")
        until(shadow, lambda found: found.asked == 1)
    _, headers = seen[0]

    passed = ("x-request-id", "x-on-error", "authorization", "content-type", "tabserve-shadow", "x-request-timeout-ms")
    assert [headers[name] for name in passed] == ["q-1", "record", "Bearer t", "application/json", "1", "2500"]
    assert not {"tabserve-arm", "traceparent"} & headers.keys()


def test_a_slot_that_hangs_costs_copies_and_nothing_else(scripted: Any) -> None:
    url, _ = scripted
    count = MOST_WAITING + WORKERS + 40
    with create_server(("127.0.0.1", 0), backlog=64) as hanging:
        port = hanging.getsockname()[1]
        shadow = Shadow(url, f"127.0.0.1:{port}", per_second=1e6, timeout=30)
        shadow.start(0, "127.0.0.1")
        send(shadow, *[answered("accept")] * count)
        full = shadow.copies()
    until(shadow, lambda found: found.asked >= MOST_WAITING)
    shadow.stop()

    assert (full.received, full.asked) == (count, 0)
    assert 40 <= full.dropped <= 40 + WORKERS
    assert shadow.copies().canary_failed == shadow.copies().asked


def test_a_question_ends_in_time(scripted: Any) -> None:
    url, _ = scripted
    with create_server(("127.0.0.1", 0)) as hanging:
        address = f"127.0.0.1:{hanging.getsockname()[1]}"
        with shadowing(url, address, timeout=0.1) as shadow:
            send(shadow, answered("accept"), answered("accept"))
            found = until(shadow, lambda found: found.asked == 2)

    assert (found.canary_failed, found.stable_failed, found.pairs) == (2, 0, 0)


def test_more_than_the_rate_is_not_asked(scripted: Any) -> None:
    url, seen = scripted
    with shadowing(url, url, per_second=1e-9) as shadow:
        send(shadow, *[answered("accept")] * 5)
        found = until(shadow, lambda found: found.asked == 1)

    assert (found.received, found.limited, len(seen)) == (5, 4, 2)


def test_a_rate_allows_so_many_a_second_and_no_more_at_once() -> None:
    times = iter([0.0, *[10.0] * 6, 10.5, 10.5, 10.5, 10.5])
    rate = Rate(4, lambda: next(times))

    assert [rate.allows() for _ in range(6)] == [True] * 4 + [False] * 2
    assert [rate.allows() for _ in range(4)] == [True, True, False, False]


def test_what_cannot_be_asked_is_counted(scripted: Any) -> None:
    url, seen = scripted
    long = b" " * (receiver.MOST_BODY_BYTES + 1)
    with shadowing(url, url) as shadow:
        send(shadow, b"\0" * 5, path="/inference.GRPCInferenceService/ModelInfer", content_type="application/grpc")
        send(shadow, long, [long])
        send(shadow, answered("accept"), path="/v2/models/m/ready")
        send(shadow, b"", path="/")
        send(shadow, answered("accept"))
        found = until(shadow, lambda found: found.asked == 1)

    assert (found.received, found.unread, found.grpc, found.large, len(seen)) == (5, 2, 1, 2, 2)


def test_what_is_no_http_ends_its_connection_alone(scripted: Any) -> None:
    url, _ = scripted
    with shadowing(url, url) as shadow:
        with create_connection(("127.0.0.1", shadow.port), timeout=30) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert connection.recv(1) == b""
        send(shadow, answered("accept"))
        assert until(shadow, lambda found: found.asked == 1).received == 1


def test_connections_are_bounded(scripted: Any) -> None:
    url, _ = scripted
    with shadowing(url, url) as shadow:
        address = ("127.0.0.1", shadow.port)
        open_ones = [HTTPConnection(*address, timeout=30) for _ in range(receiver.MOST_CONNECTIONS)]
        for connection in open_ones:
            connection.request("POST", "/")
            assert connection.getresponse().read() == b""
        with create_connection(address, timeout=30) as one_more, suppress(ConnectionError):
            assert one_more.recv(1) == b""
        for connection in open_ones:
            connection.close()


def test_counts_go_on_from_those_of_a_former_gate(scripted: Any) -> None:
    url, _ = scripted
    former = Copies(received=7, asked=5, pairs=5, decided=5)
    with shadowing(url, url, copies=former) as shadow:
        send(shadow, answered("accept"))
        found = until(shadow, lambda found: found.asked == 6)

    assert (found.received, found.pairs, found.decided) == (8, 6, 6)
    assert former.received == 7


def test_a_taken_port_and_a_wrong_url_are_refused() -> None:
    with create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Shadow("http://a", "http://b").start(taken.getsockname()[1], "127.0.0.1")
    with pytest.raises(ServiceError, match="expected http"):
        Shadow("ftp://a", "http://b")
