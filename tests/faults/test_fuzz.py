"""Requests damaged at random (fault catalogue 22): no 5xx, nothing hangs, and the next good request is answered."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from tests.faults import wire
from tests.faults.conftest import Subject

ROUNDS = 400
WORDS = rb'null true -1 1e999 18446744073709551616 "\ud800" [] {} [[ }} NaN " FP32 BYTES INT8 BOOL "data" "shape" , :'
TOKENS = [*WORDS.split(), b'"inputs"', b'"parameters"', b"\x00", b"\xff"]
CLIENTS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# A damaged Transfer-Encoding or version is the client's fault too (RFC 9112, 6.1; RFC 9110, 15.6.6).
NOT_OURS = {501, 505}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes: a flipped bit, a cut, a repetition, or a token of JSON."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        until = min(len(content), at + rng.choice([0, 1, 1, 2, 8, 40]))
        inserted = rng.choice([rng.choice(TOKENS), rng.randbytes(rng.randint(0, 4)), content[at:until] * 2, b""])
        content = content[:at] + inserted + content[until:]
    return content


def bodies(subject: Subject) -> Iterator[tuple[str, bytes, list[str]]]:
    """Good requests to start from: path, body and headers."""
    content = subject.payload.rows(1)
    infer = f"{subject.target.path}/infer"
    yield infer, json.dumps(content.json()).encode(), ["Content-Type: application/json"]
    body, headers = content.binary(parameters={"binary_data_output": True})
    yield infer, body, [f"{name}: {value}" for name, value in headers.items()]
    record = {tensor.name: tensor.array.tolist()[0] for tensor in content.tensors}
    yield f"/v1/models/{subject.target.model}:predict", json.dumps({"instances": [record]}).encode(), []


@pytest.mark.parametrize("kind", range(3), ids=["json", "binary", "v1"])
def test_damaged_bodies_are_answered_with_200_or_4xx(subject: Subject, kind: int) -> None:
    path, body, headers = list(bodies(subject))[kind]
    rng = random.Random(kind)
    statuses: Counter[int] = Counter()
    with wire.connection(subject.service.http_port) as opened:
        for _ in range(ROUNDS):
            content = damaged(body, rng)
            wire.send(opened, wire.post(path, *headers, f"Content-Length: {len(content)}", body=content))
            statuses[wire.answers(opened)[0].status] += 1
    assert statuses.keys() <= {200, 400}, statuses
    assert statuses[400] > ROUNDS // 4
    subject.assert_serves()


def test_damaged_http_never_hangs_nor_fails(subject: Subject) -> None:
    path, body, headers = next(bodies(subject))
    rng = random.Random(3)
    good = wire.post(path, *headers, f"Content-Length: {len(body)}", body=body)
    head = good.index(b"\r\n\r\n")
    statuses: Counter[int] = Counter()
    for _ in range(ROUNDS // 4):
        request = damaged(good[:head], rng) + good[head:]
        with wire.connection(subject.service.http_port) as opened:
            wire.send(opened, request)
            wire.send(opened, b"\r\n\r\n" + wire.post(path, "Connection: close", "Content-Length: 0") * 40)
            statuses.update(wire.statuses(wire.rest(opened)))
    failed = {status for status in statuses if status >= 500}
    assert failed <= NOT_OURS, statuses
    subject.assert_serves()


def test_damaged_messages_are_answered_with_ok_or_the_client_s_fault(subject: Subject) -> None:
    rng = random.Random(4)
    messages = [subject.payload.rows(1).message(subject.target.model, typed) for typed in (True, False)]
    statuses: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(subject.service.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for index in range(ROUNDS):
            message = damaged(messages[index % 2].SerializeToString(), rng)
            statuses[call.future(message, timeout=60).code()] += 1
    assert statuses.keys() <= {grpc.StatusCode.OK, *CLIENTS_FAULT}, statuses
    subject.assert_serves()
