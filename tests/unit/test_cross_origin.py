"""Which other origins' pages may call REST from a browser: none, the listed ones, or all."""

from __future__ import annotations

import json
from collections.abc import Generator

import click
import pytest

from tabserve.inference.settings import ServerSettings, read
from tests.contract.target import Answer, Target
from tests.serving import running

APP, OTHER = "https://app.example.com", "https://other.example.com"
SHARED = {"access-control-allow-origin": APP, "access-control-expose-headers": "*", "vary": "origin"}
NOT_SHARED = {"access-control-allow-origin": None, "access-control-expose-headers": None, "vary": "origin"}
NOTHING = dict.fromkeys(SHARED)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    """A service that lists two origins."""
    log = tmp_path_factory.mktemp("listed") / "log"
    with running("tests.echo", f"--cors_origins={APP}, http://localhost:3000", log=log) as service:
        yield Target(service.url, None, None, None)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    """A service that is open to all origins."""
    with running("tests.echo", "--cors_origins=*", log=tmp_path_factory.mktemp("open") / "log") as service:
        yield Target(service.url, None, None, None)


def shared(answer: Answer) -> dict[str, str | None]:
    """The answer's headers that browsers go by."""
    return {name: answer.headers[name] for name in SHARED}


def asked(target: Target, origin: str) -> list[Answer]:
    """A page, an answer, a refusal by its body, one by its headers, and an unknown path."""
    body, named = json.dumps(target.payload.json()), {"Origin": origin}
    answers = [
        target.http("GET", "/v2", None, named),
        target.http("POST", f"{target.path}/infer", body, named),
        target.http("POST", f"{target.path}/infer", "{}", named),
        target.http("POST", f"{target.path}/infer", body, named | {"Content-Type": "text/plain"}),
        target.http("GET", "/nothing", None, named),
    ]
    assert [answer.status for answer in answers] == [200, 200, 400, 415, 404]
    return answers


def preflight(target: Target, origin: str) -> Answer:
    """The answer to a browser that asks whether it may send a request."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = "content-type, x-request-timeout-ms"
    return target.http("OPTIONS", f"{target.path}/infer", None, headers)


def test_a_listed_origin_may_read_every_answer(listed: Target) -> None:
    assert [shared(answer) for answer in asked(listed, APP)] == [SHARED] * 5


def test_another_origin_may_not(listed: Target) -> None:
    assert [shared(answer) for answer in asked(listed, OTHER)] == [NOT_SHARED] * 5


def test_a_listed_origin_may_send_what_it_asks_for(listed: Target) -> None:
    answer = preflight(listed, APP)

    assert (answer.status, answer.body, shared(answer)) == (200, b"", SHARED)
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    assert answer.headers["Access-Control-Allow-Headers"] == "*, authorization"


def test_another_origin_is_told_nothing(listed: Target) -> None:
    answer = preflight(listed, OTHER)

    assert (answer.status, shared(answer)) == (200, NOT_SHARED)
    assert answer.headers["Access-Control-Allow-Methods"] is None


def test_all_origins_may_be_let_in(opened: Target) -> None:
    anyone = {"access-control-allow-origin": "*", "access-control-expose-headers": "*", "vary": None}

    assert [shared(answer) for answer in [*asked(opened, OTHER), preflight(opened, OTHER)]] == [anyone] * 6


def test_none_is_let_in_unless_it_is_named(echo_target: Target) -> None:
    assert [shared(answer) for answer in asked(echo_target, APP)] == [NOTHING] * 5
    preflight(echo_target, APP).assert_error(405, 405)


@pytest.fixture
def echo_target(request: pytest.FixtureRequest) -> Target:
    """A service without the setting."""
    return Target(request.getfixturevalue("echo").url, None, None, None)


@pytest.mark.parametrize(
    "origins", ["https://app.example.com/", "app.example.com", "https://App.example.com", "null", f"{APP} {OTHER}"]
)
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(
        click.UsageError, match=r"cors_origins: expected \* or origins such as https://app\.example\.com"
    ):
        read(ServerSettings, {"cors_origins": origins}, {})


@pytest.mark.parametrize("origins", ["", "*", APP, f"{APP},http://localhost:3000", "http://[::1]:8080"])
def test_what_is_one_is_taken(origins: str) -> None:
    assert ",".join(read(ServerSettings, {"cors_origins": origins}, {}).origins) == origins
