"""The hook of examples/redis on a real Redis: fresh, missing, slow, gone and back (make long-redis)."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from tests.serving import ROOT, Service, free_port, start

CUSTOMER: dict[Any, Any] = {"opened": "2020-03-01T12:00:00", "purchases": 400, "income": 90_000}
PAYMENT = {"amount": 700, "country": "NL", "channel": "web", "paid": "2026-03-01T03:00:00", "customer": "7"}


@contextmanager
def redis_server(port: int) -> Generator[redis.Redis]:
    """A Redis that stores nothing, ready."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        while not _answers(client):
            assert process.poll() is None
        yield client
        client.close()
    finally:
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def completed(payments_bundle: Path, payments_predictor: Service, logs: Path, port: int) -> Generator[Service]:
    """The transformer with the example's hook."""
    options = [f"--model_dir={payments_bundle}", f"--predictor_host=127.0.0.1:{payments_predictor.http_port}"]
    environment = {
        "REDIS_URL": f"redis://127.0.0.1:{port}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'examples' / 'redis'}",
    }
    service = start(
        "tabserve_transformer",
        *options,
        "--model_class=customers:Customers",
        log=logs / "redis.log",
        environment=environment,
    )
    try:
        service.wait_ready()
        yield service
    finally:
        service.kill()


def decided(service: Service, *records: dict[str, Any], timeout_ms: int = 10_000) -> tuple[int, Any, str | None]:
    """Status, answer and Retry-After."""
    connection = HTTPConnection("127.0.0.1", service.http_port, timeout=60)
    body = orjson.dumps({"instances": records})
    headers = {"content-type": "application/json", "x-request-timeout-ms": str(timeout_ms)}
    connection.request("POST", "/v1/models/payments:predict", body, headers)
    answer = connection.getresponse()
    content = orjson.loads(answer.read())
    connection.close()
    return answer.status, content.get("predictions") or content["error"], answer.getheader("retry-after")


def whole(customer: dict[str, Any]) -> dict[str, Any]:
    """The payment as a client without the hook sends it."""
    return {name: value for name, value in PAYMENT.items() if name != "customer"} | customer


@pytest.mark.long
def test_features_are_what_redis_holds_now(completed: Service, payments_transformer: Service, port: int) -> None:
    with redis_server(port) as client:
        client.hset("customer:7", mapping=CUSTOMER)
        assert decided(completed, PAYMENT) == decided(payments_transformer, whole(CUSTOMER))
        newer: dict[Any, Any] = {"opened": "2026-02-28T12:00:00", "purchases": 0}
        client.delete("customer:7")
        client.hset("customer:7", mapping=newer)
        fresh = decided(completed, PAYMENT, PAYMENT)
        assert fresh == decided(payments_transformer, whole(newer), whole(newer))
        assert fresh[1][0] != decided(payments_transformer, whole(CUSTOMER))[1][0]


@pytest.mark.long
def test_a_customer_that_is_missing_is_named(completed: Service, port: int) -> None:
    with redis_server(port) as client:
        client.hset("customer:7", mapping=CUSTOMER)
        message = "record 1, field `customer`: expected a known customer"
        assert decided(completed, PAYMENT, {**PAYMENT, "customer": "8"}) == (400, message, None)


@pytest.mark.long
def test_a_redis_that_is_slow_is_waited_for_until_the_deadline(completed: Service, port: int) -> None:
    with redis_server(port) as client:
        client.hset("customer:7", mapping=CUSTOMER)
        client.client_pause(20_000)
        assert decided(completed, PAYMENT, timeout_ms=300) == (504, "the customers were not read in time", None)
        assert completed.status("/v2/health/live") == 200
        client.client_unpause()
        assert decided(completed, PAYMENT)[0] == 200


@pytest.mark.long
def test_a_redis_that_is_gone_is_said_until_it_is_back(completed: Service, port: int) -> None:
    for _ in range(2):
        assert decided(completed, PAYMENT) == (503, "the customers cannot be read now", "1")
        with redis_server(port) as client:
            client.hset("customer:7", mapping=CUSTOMER)
            assert decided(completed, PAYMENT)[0] == 200
    assert "Traceback" not in completed.text()
