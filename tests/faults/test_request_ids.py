"""`x-request-id`: in every answer to a request, and never anything that a header, metadata or a log cannot hold."""

from __future__ import annotations

import json

import grpc
import pytest

from tests.faults import wire
from tests.faults.conftest import Subject

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


def ids(subject: Subject, *headers: str, path: str = "/v2/models/echo/infer", body: bytes | None = None) -> list[str]:
    """The ids of the answer to a request, valid where no body is given."""
    body = json.dumps(subject.payload.json()).encode() if body is None else body
    with wire.connection(subject.service.http_port) as opened:
        wire.send(opened, wire.post(path, *headers, f"Content-Length: {len(body)}", body=body))
        (answer,) = wire.answers(opened)
    return [value for name, value in answer.headers.items() if name.lower() in ("x-request-id", "tests-echo-id")]


@pytest.mark.parametrize("given", ["a", "order-17/b:3", "~" * 128])
def test_the_client_s_id_is_handed_on_and_told_in_the_answer(echoing: Subject, given: str) -> None:
    assert ids(echoing, f"X-Request-Id: {given}") == [given] * 2


def test_without_one_each_request_gets_its_own(echoing: Subject) -> None:
    made = [ids(echoing) for _ in range(2)]

    assert [len(set(each)) for each in made] == [1, 1]
    assert made[0] != made[1]


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "a\tb", "ü"])
def test_one_that_is_not_fit_is_replaced(echoing: Subject, given: str) -> None:
    (told, handed_on) = ids(echoing, f"X-Request-Id: {given}")

    assert told == handed_on != given
    assert told.isascii()
    assert told.isprintable()


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v2/models/echo/infer", b"{}", []),
        ("/v2/models/echo/infer", b"{}", ["Content-Encoding: gzip"]),
        ("/v2/models/echo/infer", b"{}", ["X-Request-Timeout-Ms: 0"]),
        ("/v1/models/echo:predict", b"{}", []),
    ],
    ids=["malformed", "encoded", "late", "v1"],
)
def test_it_is_in_refusals_and_in_v1_too(echoing: Subject, path: str, body: bytes, headers: list[str]) -> None:
    assert ids(echoing, "X-Request-Id: a1", *headers, path=path, body=body)[-1] == "a1"


def told(subject: Subject, message: bytes, *given: tuple[str, str]) -> list[str]:
    """The ids in the trailing metadata of a call, whatever its status."""
    with grpc.insecure_channel(subject.service.grpc) as channel:
        call = channel.unary_unary(MODEL_INFER).future(message, timeout=60, metadata=given)
        call.exception()
        names = ("x-request-id", "tests-echo-id")
        return [value for name, value in call.trailing_metadata() if name in names]


def test_over_grpc_it_is_among_the_trailing_metadata(echoing: Subject) -> None:
    message = echoing.payload.message("echo").SerializeToString()

    assert told(echoing, message, ("x-request-id", "a1")) == ["a1"] * 2
    assert told(echoing, b"\xff", ("x-request-id", "a1")) == ["a1"]
    assert len(set(told(echoing, message, ("x-request-id", "a b")))) == 1
    assert told(echoing, message) != told(echoing, message)


def test_no_id_is_logged(echoing: Subject) -> None:
    ids(echoing, "X-Request-Id: never-logged", body=b"{}")

    assert "never-logged" not in echoing.service.text()
