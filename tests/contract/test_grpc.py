"""Statements 54 to 69: the protocol over gRPC."""

from __future__ import annotations

import grpc
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import TYPED, Payload, equal
from tests.contract.target import Target, grpc_outputs

SERVER_FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


def assert_refused(target: Target, message: pb.ModelInferRequest) -> None:
    """Assert that the request fails, and that the status blames the client."""
    assert target.refusal("ModelInfer", message) not in SERVER_FAULTS


@pytest.mark.statement(54)
@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ServerMetadata"])
def test_54_server_methods_answer(rpc: Target, method: str) -> None:
    """54. `inference.GRPCInferenceService` implements ServerLive, ServerReady and ServerMetadata."""
    assert rpc.call(method) is not None


@pytest.mark.statement(54)
def test_54_model_methods_answer(rpc: Target, payload: Payload) -> None:
    """54. `inference.GRPCInferenceService` implements ModelReady, ModelMetadata and ModelInfer."""
    assert rpc.call("ModelReady", pb.ModelReadyRequest(name=rpc.model)).ready
    assert rpc.call("ModelMetadata", pb.ModelMetadataRequest(name=rpc.model)).name == rpc.model
    assert rpc.call("ModelInfer", payload.message(rpc.model)).outputs


@pytest.mark.statement(55)
def test_55_a_failure_is_a_status(rpc: Target, payload: Payload) -> None:
    """55. A failure is a status other than OK, with a text."""
    message = payload.message(rpc.model)
    message.inputs[0].datatype = "FLOAT"
    assert_refused(rpc, message)
    assert_refused(rpc, pb.ModelInferRequest(model_name=rpc.model))


@pytest.mark.statement(56)
def test_56_a_ready_server_says_ready(rpc: Target) -> None:
    """56. ServerReady says `ready`, as REST does."""
    assert rpc.call("ServerReady").ready == (rpc.http("GET", "/v2/health/ready").status == 200)


@pytest.mark.statement(57)
def test_57_ready_of_an_unknown_model_fails(rpc: Target) -> None:
    """57. ModelReady of a model that isn't there fails."""
    assert rpc.refusal("ModelReady", pb.ModelReadyRequest(name="no-such-model")) not in SERVER_FAULTS


@pytest.mark.statement(58)
def test_58_server_metadata_are_those_of_rest(rpc: Target) -> None:
    """58. ServerMetadata has name, version and extensions."""
    answer = rpc.call("ServerMetadata")
    assert (answer.name, answer.version) == (rpc.server["name"], rpc.server["version"])
    assert sorted(answer.extensions) == sorted(rpc.server["extensions"])


@pytest.mark.statement(59)
def test_59_model_metadata_are_those_of_rest(rpc: Target) -> None:
    """59. ModelMetadata has name, versions, platform, inputs and outputs."""
    answer = rpc.call("ModelMetadata", pb.ModelMetadataRequest(name=rpc.model))
    assert answer.platform == rpc.metadata["platform"]
    assert list(answer.versions) == (rpc.metadata.get("versions") or [])
    for side in ("inputs", "outputs"):
        tensors = [(t.name, t.datatype, list(t.shape)) for t in getattr(answer, side)]
        assert tensors == [(t["name"], t["datatype"], t["shape"]) for t in rpc.metadata[side]]


@pytest.mark.statement(60)
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "raw"])
def test_60_inference_echoes_id_and_model(rpc: Target, payload: Payload, typed: bool) -> None:
    """60. ModelInfer echoes id and model name; each output has name, datatype and shape, and REST's values."""
    answer = rpc.call("ModelInfer", payload.message(rpc.model, typed, id="a-7 ü"))
    assert (answer.id, answer.model_name) == ("a-7 ü", rpc.model)
    assert equal(grpc_outputs(answer), rpc.infer(payload.json()).outputs())


@pytest.mark.statement(61)
@pytest.mark.parametrize("count", [-1, 1], ids=["fewer", "more"])
def test_61_raw_contents_are_one_for_each_input(rpc: Target, payload: Payload, count: int) -> None:
    """61. `raw_input_contents` has one entry for each input; another number is an error."""
    message = payload.message(rpc.model, typed=False)
    raws = list(message.raw_input_contents)
    del message.raw_input_contents[:]
    message.raw_input_contents.extend(raws[:-1] if count < 0 else [*raws, b""])
    assert_refused(rpc, message)


@pytest.mark.statement(61)
@pytest.mark.parametrize("change", [-1, 1], ids=["shorter", "longer"])
def test_61_raw_contents_have_the_size_of_their_shape(rpc: Target, payload: Payload, change: int) -> None:
    """61. The size of an entry is that of its shape and datatype; another size is an error, and not INTERNAL."""
    message = payload.message(rpc.model, typed=False)
    raw = message.raw_input_contents[0]
    message.raw_input_contents[0] = raw[:-1] if change < 0 else raw + b"\x00"
    assert_refused(rpc, message)


@pytest.mark.statement(62)
def test_62_raw_and_typed_contents_do_not_mix(rpc: Target, payload: Payload) -> None:
    """62. With raw contents no input has typed ones."""
    message = payload.message(rpc.model, typed=False)
    message.inputs[0].contents.bool_contents.append(True)
    assert_refused(rpc, message)


@pytest.mark.statement(63)
def test_63_fp16_must_be_raw(rpc: Target, payload: Payload) -> None:
    """63. FP16 has no typed contents: they are an error."""
    message = payload.message(rpc.model, typed=False)
    del message.raw_input_contents[:]
    for tensor, given in zip(message.inputs, payload.tensors, strict=True):
        getattr(tensor.contents, TYPED.get(given.datatype, "fp32_contents")).extend(given.array.ravel().tolist())
    message.inputs[0].datatype = "FP16"
    assert_refused(rpc, message)


@pytest.mark.statement(64)
def test_64_typed_contents_are_in_their_field(typed: Target, payload: Payload) -> None:
    """64. Each datatype has its field in the contents, where each input means the same as in JSON."""
    message = payload.message(typed.model)
    assert [tensor.contents.ListFields()[0][0].name for tensor in message.inputs] == [
        TYPED[tensor.datatype] for tensor in payload.tensors
    ]
    assert equal(grpc_outputs(typed.call("ModelInfer", message)), typed.infer(payload.json()).outputs())


@pytest.mark.statement(64)
def test_64_contents_in_a_wrong_field_are_an_error(rpc: Target, payload: Payload) -> None:
    """64. Elements in the field of another datatype are an error for every input, and not INTERNAL."""
    for index, tensor in enumerate(payload.tensors):
        message = payload.message(rpc.model)
        wrong = "uint64_contents" if tensor.datatype == "INT64" else "int64_contents"
        message.inputs[index].ClearField("contents")
        getattr(message.inputs[index].contents, wrong).extend([1] * tensor.array.size)
        assert_refused(rpc, message)


@pytest.mark.statement(65)
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "raw"])
def test_65_outputs_are_raw_or_typed_but_never_both(rpc: Target, payload: Payload, typed: bool) -> None:
    """65. Outputs are all in `raw_output_contents`, in their order, or all in typed contents."""
    answer = rpc.call("ModelInfer", payload.message(rpc.model, typed))
    with_contents = [output.name for output in answer.outputs if output.HasField("contents")]
    raws = len(answer.raw_output_contents)
    assert (len(with_contents), raws) in {(len(answer.outputs), 0), (0, len(answer.outputs))}


@pytest.mark.statement(66)
def test_66_only_requested_outputs_are_returned(rpc: Target, payload: Payload) -> None:
    """66. With `outputs` only these are returned, and an unknown one is an error."""
    name = rpc.metadata["outputs"][0]["name"]
    requested = pb.ModelInferRequest.InferRequestedOutputTensor
    answer = rpc.call("ModelInfer", payload.message(rpc.model, outputs=[requested(name=name)]))
    assert [output.name for output in answer.outputs] == [name]
    assert_refused(rpc, payload.message(rpc.model, outputs=[requested(name="no-such-output")]))


@pytest.mark.statement(67)
def test_67_parameters_have_five_types(rpc: Target, payload: Payload) -> None:
    """67. A parameter is bool, int64, string, double or uint64, and unknown ones change nothing."""
    parameters = {
        "x_bool": pb.InferParameter(bool_param=True),
        "x_int64": pb.InferParameter(int64_param=-(2**63)),
        "x_string": pb.InferParameter(string_param="ü"),
        "x_double": pb.InferParameter(double_param=0.1),
        "x_uint64": pb.InferParameter(uint64_param=2**64 - 1),
    }
    message = payload.message(rpc.model, parameters=parameters)
    for name, parameter in parameters.items():
        message.inputs[0].parameters[name].CopyFrom(parameter)
    assert equal(grpc_outputs(rpc.call("ModelInfer", message)), rpc.infer(payload.json()).outputs())


@pytest.mark.statement(68)
def test_68_a_message_over_the_limit_is_resource_exhausted(
    rpc: Target, payload: Payload, pytestconfig: pytest.Config
) -> None:
    """68. A message over the limit fails with RESOURCE_EXHAUSTED."""
    message = payload.message(rpc.model, id="x" * pytestconfig.getoption("--grpc-limit"))
    assert rpc.refusal("ModelInfer", message) == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.statement(69)
def test_69_an_unknown_version_fails_as_over_rest(rpc: Target, payload: Payload) -> None:
    """69. A model version that isn't there fails in every method; one that the metadata lists works."""
    unknown = "no-such-version"
    rpc.refusal("ModelInfer", payload.message(rpc.model, model_version=unknown))
    rpc.refusal("ModelReady", pb.ModelReadyRequest(name=rpc.model, version=unknown))
    rpc.refusal("ModelMetadata", pb.ModelMetadataRequest(name=rpc.model, version=unknown))
    listed = [payload.message(rpc.model, model_version=version) for version in rpc.metadata.get("versions") or []]
    assert all(rpc.call("ModelInfer", message).outputs for message in listed)
