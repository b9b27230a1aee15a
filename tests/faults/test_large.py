"""Requests within the size limit that would take seconds to decode are refused for their contents or their shape."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import Payload, elements
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import Service, running

pytestmark = pytest.mark.alone

MANY = 2_000_000
TIMES = 3


@pytest.fixture(scope="module", params=["predictor", "transformer"])
def subject(request: pytest.FixtureRequest, bundle: Path, predictor: Service, logs: Path) -> Generator[Subject]:
    """Both services, with a limit of 8 MiB on bodies."""
    options = [f"--model_dir={bundle}", f"--max_body_bytes={8 * 2**20}"]
    options += [f"--predictor_host=127.0.0.1:{predictor.http_port}"] if request.param == "transformer" else []
    with running(f"tabserve_{request.param}", *options, log=logs / f"large_{request.param}.log") as service:
        yield Subject(service)


def binary(datatype: str, shape: str, data: bytes) -> tuple[str, bytes]:
    """The length of the JSON, and a body: one tensor as bytes."""
    head = '{"inputs":[{"name":"input-0","datatype":"%s","shape":%s,"parameters":{"binary_data_size":%d}}]}'
    start = (head % (datatype, shape, len(data))).encode()
    return f"{len(start)}", start + data


def tensor(shape: str, data: bytes) -> bytes:
    """The same tensor in JSON."""
    head = b'{"inputs":[{"name":"input-0","datatype":"FP64","shape":%b,"data":%b}]}'
    return head % (shape.encode(), data)


EMPTY_INPUT = b'{"name":"a","datatype":"FP64","shape":[0],"data":[]}'
SIZE, EMPTY_TEXTS = binary("BYTES", f"[{MANY}]", bytes(4 * MANY))
BODIES = {
    "empty texts": ("infer", EMPTY_TEXTS),
    "a column of arrays": ("infer", tensor(f"[{MANY},1]", b"[" + b"[1]," * (MANY - 1) + b"[1]]")),
    "a small shape": ("infer", tensor("[1,10]", b"[" + b"1," * (MANY - 1) + b"1]")),
    "inputs": ("infer", b'{"inputs":[' + b",".join([EMPTY_INPUT] * 150_000) + b"]}"),
    "dimensions": ("infer", tensor("[" + "1," * MANY + "1]", b"[1]")),
    "empty rows": ("predict", b'{"instances":[' + b"[]," * MANY + b"[]]}"),
    "empty records": ("predict", b'{"instances":[' + b"{}," * MANY + b"{}]}"),
    "one row": ("predict", b'{"instances":[[' + b"1," * MANY + b"1]]}"),
    "names": ("predict", b'{"instances":[{' + b",".join(b'"%x":1' % at for at in range(600_000)) + b"}]}"),
    "a long name": ("predict", b'{"instances":[{"' + b"a" * 4 * MANY + b'":1}]}'),
    "a long output": (
        "infer",
        b'{"inputs":[' + EMPTY_INPUT + b'],"outputs":[{"name":"' + b"a" * 4 * MANY + b'"}]}',
    ),
}


def seconds(subject: Subject) -> float:
    """The CPU time that the service has used."""
    times = psutil.Process(subject.service.process.pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_holds_too_much_is_refused_for_a_part_of_what_it_costs_to_parse(
    subject: Subject, kind: str
) -> None:
    path, body = BODIES[kind]
    name = subject.target.model
    target = f"/v2/models/{name}/infer" if path == "infer" else f"/v1/models/{name}:predict"
    size = [f"Inference-Header-Content-Length: {SIZE}"] if body is EMPTY_TEXTS else []
    request = wire.post(target, f"Content-Length: {len(body)}", *size, body=body)

    before = time.process_time()
    json.loads(BODIES["a column of arrays"][1])
    parsing = time.process_time() - before
    before = seconds(subject)
    answers = [wire.ask(subject.service.http_port, request) for _ in range(TIMES)]

    assert {status for statuses in answers for status in statuses} <= {400, 413}
    assert (seconds(subject) - before) / TIMES < parsing
    subject.assert_serves()


def message(subject: Subject, data: bytes) -> grpc.StatusCode:
    """The status of a call with these bytes as its message."""
    with grpc.insecure_channel(subject.service.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as failure:
            call(data, timeout=60)
    status: grpc.StatusCode = failure.value.code()
    return status


def test_messages_that_hold_too_much_are_refused(subject: Subject) -> None:
    name = pb.ModelInferRequest(model_name=subject.target.model).SerializeToString()
    many = pb.ModelInferRequest()
    many.inputs.add(name="input-0", datatype="BYTES", shape=[MANY]).contents.bytes_contents.extend([b""] * MANY)
    raw = pb.ModelInferRequest(raw_input_contents=[bytes(4 * 1_900_000)])
    raw.inputs.add(name="input-0", datatype="BYTES", shape=[1_900_000])
    refusals = [message(subject, name + data) for data in (
        b"\x2a\x00" * MANY, b"\x32\x00" * MANY, many.SerializeToString(), raw.SerializeToString(),
    )]  # fmt: skip

    expected = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert set(refusals) <= expected
    subject.assert_serves()


def test_a_large_request_is_answered_as_in_every_other_form(subject: Subject, matrix: Payload) -> None:
    """Flat, nested and binary, over REST and gRPC, with ten thousand rows, the most there may be."""
    rows = np.resize(matrix.tensors[0].array, (10_000, matrix.tensors[0].array.shape[1]))
    flat = {"name": "input-0", "datatype": "FP64", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    nested = {**flat, "data": rows.tolist()}
    answers = [subject.target.infer({"inputs": [each]}).outputs() for each in (flat, nested)]
    request = pb.ModelInferRequest(model_name=subject.target.model, raw_input_contents=[rows.astype("<f8").tobytes()])
    request.inputs.add(name="input-0", datatype="FP64", shape=rows.shape)
    over_grpc = subject.target.call("ModelInfer", request)

    found = [{name: elements(tensor.array) for name, tensor in answer.items()} for answer in answers]
    assert found[0] == found[1]
    assert len(found[0]["predict_proba"]) == 20_000
    assert [output.name for output in over_grpc.outputs] == list(found[0])


def test_a_row_more_than_there_may_be_is_a_413_whatever_it_holds(subject: Subject) -> None:
    body = {"name": "input-0", "datatype": "FP64", "shape": [10_001, 10], "data": [1] * 100_010}

    error = subject.target.infer({"inputs": [body]}).assert_error(413, 413)
    assert error == "expected at most 10000 rows, got 10001"
