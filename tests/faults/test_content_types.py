"""MLServer's parameter `content_type`: values that mean the same in V2 change nothing, others are refused."""

from __future__ import annotations

import base64
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import Json, Payload, Tensor, equal, framed
from tests.contract.target import Target, grpc_outputs
from tests.faults.conftest import Subject
from tests.serving import Service

COLUMNS: dict[str, float | str] = {
    "amount": 12.5,
    "country": "DE",
    "channel": "web",
    "purchases": 4.0,
    "income": 2000.0,
    "account_age": 59.5,
    "hour": 3.0,
    "weekday": 1.0,
}
RECORD: dict[str, float | str] = {
    "amount": 12.5,
    "country": "DE",
    "channel": "web",
    "opened": "2026-01-31T12:00:00Z",
    "paid": "2026-03-31T03:00:00Z",
    "purchases": 4.0,
    "income": 2000.0,
}
FORMS = ["json", "binary", "typed", "raw"]

ContentTypes: TypeAlias = dict[str, Any]
"""Content types by the name of an input or an output; "" is the request's own."""


def payload(values: dict[str, float | str]) -> Payload:
    """A row of columns."""
    return Payload(tuple(tensor(name, value) for name, value in values.items()))


def tensor(name: str, value: float | str) -> Tensor:
    if isinstance(value, str):
        return Tensor(name, "BYTES", np.array([value.encode()], object))
    return Tensor(name, "FP64", np.array([value]))


class Client:
    """Sends a payload with content types, in one of the protocol's forms."""

    def __init__(self, target: Target, given: Payload, form: str) -> None:
        self.target = target
        self.given = given
        self.form = form

    def outputs(self, of: ContentTypes, output: str = "predict_proba") -> dict[str, Tensor]:
        """The answer to a request that is accepted."""
        if self.form in ("json", "binary"):
            return self.target.infer_binary(*self._rest(of, output)).outputs()
        return grpc_outputs(self.target.call("ModelInfer", self._message(of, output)))

    def refusal(self, of: ContentTypes, output: str = "predict_proba") -> str:
        """The error of a request that is refused as invalid."""
        if self.form in ("json", "binary"):
            return self.target.infer_binary(*self._rest(of, output)).assert_error(400, 400)
        with pytest.raises(grpc.RpcError) as failure:
            self.target.call("ModelInfer", self._message(of, output))
        assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        return str(failure.value.details())

    def _rest(self, of: ContentTypes, output: str) -> tuple[bytes, dict[str, str]]:
        raws = [one.raw() for one in self.given.tensors] if self.form == "binary" else []
        inputs: list[Json] = [one.head() if raws else one.json() for one in self.given.tensors]
        for at, raw in enumerate(raws):
            inputs[at]["parameters"] = {"binary_data_size": len(raw)}
        head: Json = {"inputs": inputs, "outputs": [{"name": output}]}
        for one in (head, *inputs, *head["outputs"]):
            if one.get("name", "") in of:
                one["parameters"] = {**one.get("parameters", {}), "content_type": of[one.get("name", "")]}
        return framed(head, *raws)

    def _message(self, of: ContentTypes, output: str) -> pb.ModelInferRequest:
        message = self.given.message(self.target.model, typed=self.form == "typed")
        message.outputs.add(name=output)
        tagged: list[tuple[str, Any]] = [("", message)]
        tagged += [(one.name, one) for one in message.inputs]
        tagged += [(one.name, one) for one in message.outputs]
        for name, one in tagged:
            if name in of:
                field = "string_param" if isinstance(of[name], str) else "int64_param"
                setattr(one.parameters["content_type"], field, of[name])
        return message


@pytest.fixture(
    scope="module", params=[(kind, form) for kind in ("columns", "records") for form in FORMS], ids="-".join
)
def client(request: pytest.FixtureRequest, payments_predictor: Service, payments_transformer: Service) -> Client:
    """A client of the predictor, which takes columns, and of the transformer, which takes records."""
    kind, form = request.param
    service, values = {"columns": (payments_predictor, COLUMNS), "records": (payments_transformer, RECORD)}[kind]
    return Client(Subject(service).target, payload(values), form)


@pytest.fixture(scope="module", params=FORMS)
def of_matrix(request: pytest.FixtureRequest, predictor: Service) -> Client:
    """A client of a predictor that takes one matrix."""
    target = Subject(predictor).target
    return Client(target, target.payload.rows(2), request.param)


SAME: list[ContentTypes] = [
    {"country": "str"},
    {"amount": "np"},
    {"country": "", "amount": "", "": ""},
    {"": "pd"},
    {"": "pd", "country": "str", "channel": "str", "amount": "np"},
    {"predict_proba": "np"},
]


@pytest.mark.parametrize("of", SAME, ids=str)
def test_what_means_the_same_changes_nothing(client: Client, of: ContentTypes) -> None:
    assert equal(client.outputs(of), client.outputs({}))


OTHER: list[tuple[ContentTypes, str]] = [
    ({"country": "base64"}, 'input `country`: expected content_type "str" or none for BYTES, got "base64"'),
    ({"country": "datetime"}, 'input `country`: expected content_type "str" or none for BYTES, got "datetime"'),
    ({"country": "pd_json"}, 'input `country`: expected content_type "str" or none for BYTES, got "pd_json"'),
    ({"country": "np"}, 'input `country`: expected content_type "str" or none for BYTES, got "np"'),
    ({"country": "STR"}, 'input `country`: expected content_type "str" or none for BYTES, got "STR"'),
    ({"country": 5}, 'input `country`: expected content_type "str" or none for BYTES, got "5"'),
    ({"amount": "str"}, 'input `amount`: expected content_type "np" or none for FP64, got "str"'),
    ({"amount": "base64"}, 'input `amount`: expected content_type "np" or none for FP64, got "base64"'),
    ({"amount": "pd"}, 'input `amount`: expected content_type "np" or none for FP64, got "pd"'),
    ({"": "np"}, 'got "np"; send plain tensors'),
    ({"": "str"}, 'got "str"; send plain tensors'),
    ({"": "hf"}, 'got "hf"; send plain tensors'),
    ({"": 5}, 'got "5"; send plain tensors'),
    ({"predict_proba": "base64"}, 'output `predict_proba`: expected content_type "np", "str" or none, got "base64"'),
]


@pytest.mark.parametrize(("of", "text"), OTHER, ids=str)
def test_what_means_something_else_is_refused(client: Client, of: ContentTypes, text: str) -> None:
    assert text in client.refusal(of)


def test_text_in_base64_is_refused_and_its_place_named(client: Client) -> None:
    tensors = list(client.given.tensors)
    at = [one.name for one in tensors].index("country")
    encoded = tensor("country", base64.b64encode(b"DE").decode())
    sent = Client(client.target, client.given.swapped(at, encoded), client.form)

    assert sent.refusal({"country": "base64"}).endswith(f"send plain text - at `inputs[{at}]`")


@pytest.mark.parametrize("of", [{"input-0": "np"}, {"": "np"}], ids=str)
def test_a_matrix_may_be_called_an_array(of_matrix: Client, of: ContentTypes) -> None:
    assert equal(of_matrix.outputs(of), of_matrix.outputs({}))


def test_a_matrix_is_no_column_of_a_frame(of_matrix: Client) -> None:
    assert 'expected content_type "pd" where each input is a column' in of_matrix.refusal({"": "pd"})


def test_a_column_of_two_dimensions_is_one(client: Client) -> None:
    tensors = tuple(Tensor(one.name, one.datatype, one.array.reshape(1, 1)) for one in client.given.tensors)
    tall = Client(client.target, Payload(tensors), client.form)

    assert equal(tall.outputs({"": "pd"}), client.outputs({}))
