"""What `helm test` asks of a release: health, metadata, a reference row's answer by each protocol, a bad request's 400.

Takes ENTRY (transformer or predictor), MODEL, REST and GRPC (addresses, empty for none) and SECONDS_TO_WAIT from its
environment, and the bundle from /mnt/models.
"""

import json
import math
import os
import time
import urllib.error
import urllib.request

import grpc

from tabserve import bundle
from tabserve.bundle import expected
from tabserve.inference.grpc import open_inference_pb2 as pb

CONTENTS = {"BOOL": "bool", "INT64": "int64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes"}
MODEL, REST, GRPC = (os.environ[name] for name in ("MODEL", "REST", "GRPC"))


def http(path, body=None):
    """The status and the JSON of a request; status 0 and the reason without an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{REST}{path}", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")
    except OSError as error:
        return 0, {"error": str(error)}


def ask(stub_method, message):
    """A gRPC call."""
    with grpc.insecure_channel(GRPC) as channel:
        method = channel.unary_unary(
            f"/inference.GRPCInferenceService/{stub_method}",
            request_serializer=type(message).SerializeToString,
            response_deserializer=getattr(pb, f"{stub_method}Response").FromString,
        )
        return method(message, timeout=10)


def row_of(found, entry):
    """A reference row as (name, datatype, value) tensors, the output to ask for and its expected value."""
    if entry == "predictor":
        features, answers = found.reference.features, found.reference.outputs
        named = (
            features.items()
            if isinstance(features, dict)
            else zip((feature.name for feature in found.manifest.model.features), features.T, strict=True)
        )
        row = [(name, "BYTES" if column.dtype == object else "FP64", column[0]) for name, column in named]
        return [tensor for tensor in row if not missing(tensor[2])], "predict", float(answers["predict"][0])
    record = expected.record(found, 0)
    kinds = {str: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}
    answers = expected.decision(found, 0)
    output = "decision" if "decision" in answers else "score"
    return [(name, kinds[type(value)], value) for name, value in record.items()], output, answers[output]


def missing(value):
    """Whether a cell has no value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def tensor(name, datatype, value):
    """A tensor of one row for gRPC."""
    content = str(value).encode() if datatype == "BYTES" else value
    contents = pb.InferTensorContents(**{f"{CONTENTS[datatype]}_contents": [content]})
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=[1], contents=contents)


def same(got, wanted):
    """Whether an answer is the expected one, to the precision of a tolerance."""
    return math.isclose(got, wanted, rel_tol=1e-5, abs_tol=1e-5) if isinstance(wanted, float) else got == wanted


def check(what, ok, detail):
    """Tell of one check; end the test where it failed."""
    print("ok  " if ok else "FAIL", what, "" if ok else detail, flush=True)
    if not ok:
        raise SystemExit(1)


def over_rest(row, output, wanted):
    """The checks over REST."""
    status, body = http(f"/v2/models/{MODEL}")
    check("metadata", status == 200 and body["name"] == MODEL and body["inputs"], body)
    inputs = [{"name": n, "datatype": d, "shape": [1], "data": [v]} for n, d, v in row]
    status, body = http(f"/v2/models/{MODEL}/infer", {"inputs": inputs, "outputs": [{"name": output}]})
    check(f"V2 {output}", status == 200 and same(body["outputs"][0]["data"][0], wanted), (body, wanted))
    status, body = http(f"/v2/models/{MODEL}/infer", {"inputs": [{**inputs[0], "name": "no such input"}]})
    check("a bad request is a 400", status == 400, (status, body))


def decide(found):
    """The V1 check: a record's decision."""
    status, body = http(f"/v1/models/{MODEL}:predict", {"instances": [expected.record(found, 0)]})
    wanted = expected.decision(found, 0)
    got = body.get("predictions", [{}])[0]
    check("V1 decision", status == 200 and all(same(got.get(name), value) for name, value in wanted.items()), body)


def over_grpc(row, output, wanted):
    """The checks over gRPC."""
    meta = ask("ModelMetadata", pb.ModelMetadataRequest(name=MODEL))
    check("gRPC metadata", meta.name == MODEL and meta.inputs, meta)
    asked = pb.ModelInferRequest(
        model_name=MODEL,
        inputs=[tensor(*one) for one in row],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=output)],
    )
    answer = ask("ModelInfer", asked).outputs[0]
    contents = getattr(answer.contents, f"{CONTENTS[answer.datatype]}_contents")[0]
    check(f"gRPC {output}", same(contents.decode() if isinstance(contents, bytes) else float(contents), wanted), answer)
    try:
        ask("ModelInfer", pb.ModelInferRequest(model_name=MODEL))
    except grpc.RpcError as error:
        check("a bad request is INVALID_ARGUMENT", error.code() is grpc.StatusCode.INVALID_ARGUMENT, error)
    else:
        check("a bad request is INVALID_ARGUMENT", False, "it was answered")


def ready():
    """Whether the service says so over the protocol it exposes, and what it says if not."""
    if REST:
        status, body = http("/v2/health/ready")
        return status == 200, body
    try:
        return ask("ServerReady", pb.ServerReadyRequest()).ready, "not ready"
    except grpc.RpcError as error:
        return False, error.details()


def main():
    """Wait until ready, then check."""
    until = time.monotonic() + int(os.environ["SECONDS_TO_WAIT"])
    while not (state := ready())[0]:
        if time.monotonic() > until:
            check("ready", False, state[1])
        time.sleep(1)
    check("ready", True, "")
    found = bundle.load("/mnt/models")
    row = row_of(found, os.environ["ENTRY"])
    if REST:
        over_rest(*row)
    if REST and os.environ["ENTRY"] == "transformer":
        decide(found)
    if GRPC:
        over_grpc(*row)


main()
