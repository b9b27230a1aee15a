"""Statements 1 to 9: names, liveness and readiness over REST."""

from __future__ import annotations

import pytest

from tests.contract.payload import Payload
from tests.contract.target import Target

UNKNOWN = "no-such-model"


@pytest.mark.statement(1)
def test_01_model_names_are_case_sensitive(server: Target) -> None:
    """1. Names in URLs are case-sensitive."""
    server.http("GET", f"/v2/models/{server.model.swapcase()}").assert_refused()


@pytest.mark.statement(1)
def test_01_datatypes_are_case_sensitive(server: Target, payload: Payload) -> None:
    """1. Values in JSON strings are case-sensitive."""
    content = payload.json()
    content["inputs"][0]["datatype"] = content["inputs"][0]["datatype"].lower()
    server.infer(content).assert_refused()


@pytest.mark.statement(1)
def test_01_model_names_may_be_percent_encoded(server: Target) -> None:
    """1. A name in a URL is the same with its characters percent-encoded (RFC 3986, section 6.2.2.2)."""
    encoded = "".join(f"%{byte:02X}" for byte in server.model.encode())
    assert server.http("GET", f"/v2/models/{encoded}").json()["name"] == server.model
    assert server.http("GET", f"/v2/models/{encoded}/ready").status == 200


@pytest.mark.statement(2)
def test_02_a_live_server_answers_200(server: Target) -> None:
    """2. `GET v2/health/live` answers 200 when requests can be received."""
    assert server.http("GET", "/v2/health/live").status == 200


@pytest.mark.statement(3)
def test_03_the_live_body_says_live_or_nothing(server: Target) -> None:
    """3. The body is `{"live": bool}` or, in older text, empty."""
    answer = server.http("GET", "/v2/health/live")
    assert answer.body == b"" or answer.json() == {"live": True}


@pytest.mark.statement(4)
def test_04_a_ready_server_answers_200(server: Target) -> None:
    """4. `GET v2/health/ready` answers 200 only if all models are ready: then this model is ready too."""
    assert server.http("GET", "/v2/health/ready").status == 200
    assert server.http("GET", f"{server.path}/ready").status == 200


@pytest.mark.statement(5)
def test_05_the_ready_body_is_json_or_nothing(server: Target) -> None:
    """5. The ready body's field is contested (`live`, `ready`): the status counts, and what is there is JSON."""
    answer = server.http("GET", "/v2/health/ready")
    assert answer.body == b"" or isinstance(answer.json(), dict)


@pytest.mark.statement(6)
def test_06_what_is_not_ready_does_not_answer_200(server: Target) -> None:
    """6. Not ready is any other status than 200; a model that isn't there is never ready."""
    assert server.http("GET", f"/v2/models/{UNKNOWN}/ready").status != 200


@pytest.mark.statement(7)
def test_07_a_ready_model_answers_its_name(server: Target) -> None:
    """7. `GET v2/models/{m}/ready` answers 200 with `name` and `ready`."""
    answer = server.http("GET", f"{server.path}/ready")
    assert answer.status == 200
    assert answer.json()["name"] == server.model
    assert answer.json()["ready"] is True


@pytest.mark.statement(8)
def test_08_ready_of_an_unknown_model_is_an_error(server: Target) -> None:
    """8. An unknown model on `ready` gives an error status and `{"error"}`."""
    server.http("GET", f"/v2/models/{UNKNOWN}/ready").assert_refused()


@pytest.mark.statement(9)
def test_09_a_version_s_readiness_answers_or_refuses(server: Target) -> None:
    """9. `GET v2/models/{m}/versions/{v}/ready` is accepted for every version listed."""
    statuses = {
        version: server.http("GET", f"{server.path}/versions/{version}/ready").status
        for version in server.metadata.get("versions") or []
    }
    assert set(statuses.values()) <= {200}, statuses


@pytest.mark.statement(9)
def test_09_an_unknown_version_s_readiness_is_an_error(server: Target) -> None:
    """9. `GET v2/models/{m}/versions/{v}/ready` of a version that isn't there is an error object."""
    server.http("GET", f"{server.path}/versions/no-such-version/ready").assert_error()
