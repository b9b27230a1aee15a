"""TLS by values: what the services, the gateway and the test get, and that the release stays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.helm import one, program, rendered
from tests.chart.test_release import first, release

ON = {"tls": {"secretName": "fraud-tls"}}
FILES = {"TABSERVE_TLS_CERT": "/mnt/tls/tls.crt", "TABSERVE_TLS_KEY": "/mnt/tls/tls.key"}
CA = "/mnt/tls/ca.crt"


def containers(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The services' containers."""
    (transformer,) = one(objects, "InferenceService")["spec"]["transformer"]["containers"]
    (predictor,) = one(objects, "ServingRuntime")["spec"]["containers"]
    return {"transformer": transformer, "predictor": predictor}


def settings(container: dict[str, Any]) -> dict[str, str]:
    """Its settings about TLS."""
    found = {each["name"]: each.get("value", "") for each in container["env"]}
    return {name: value for name, value in found.items() if "TLS" in name or name.endswith("_CA")}


@pytest.mark.parametrize(
    ("asks", "transformer", "predictor"),
    [
        ("predictor", {}, {"TABSERVE_TLS_CLIENT_CA": CA}),
        ("all", {"TABSERVE_TLS_CLIENT_CA": CA}, {"TABSERVE_TLS_CLIENT_CA": CA}),
        ("none", {}, {}),
    ],
)
def test_the_services_get_their_files(asks: str, transformer: dict[str, str], predictor: dict[str, str]) -> None:
    objects = rendered({"tls": {"secretName": "fraud-tls", "clientCertificates": asks}}, program())
    found = containers(objects)

    assert settings(found["transformer"]) == {**FILES, **transformer, "TABSERVE_PREDICTOR_CA": CA}
    assert settings(found["predictor"]) == {**FILES, **predictor}
    for each in found.values():
        assert {"name": "tls", "mountPath": "/mnt/tls", "readOnly": True} in each["volumeMounts"]
    volume = {"name": "tls", "secret": {"secretName": "fraud-tls"}}
    assert volume in one(objects, "InferenceService")["spec"]["transformer"]["volumes"]
    assert volume in one(objects, "ServingRuntime")["spec"]["volumes"]


def test_the_gateway_speaks_tls_to_the_service_that_clients_call() -> None:
    policy = one(rendered(ON, program()), "BackendTLSPolicy")["spec"]

    assert policy["targetRefs"] == [{"group": "", "kind": "Service", "name": "fraud-a-transformer"}]
    assert policy["validation"] == {
        "hostname": "fraud-a-transformer.models",
        "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "fraud-tls"}],
    }


def test_without_a_transformer_it_speaks_tls_to_the_predictor_which_asks_for_no_certificate() -> None:
    objects = rendered({**ON, "transformer": {"placement": "none"}}, program())
    (predictor,) = one(objects, "ServingRuntime")["spec"]["containers"]

    assert settings(predictor) == FILES
    assert one(objects, "BackendTLSPolicy")["spec"]["targetRefs"][0]["name"] == "fraud-a-predictor"


def test_probes_are_plain_and_helm_test_is_not() -> None:
    objects = rendered(ON, program())
    (checking,) = one(objects, "Pod")["spec"]["containers"]

    assert {"name": "TLS", "value": "/mnt/tls"} in checking["env"]
    for each in containers(objects).values():
        probes = [each[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
        assert {probe["port"] for probe in probes} == {8082}
        assert all("scheme" not in probe for probe in probes)


def test_tls_leaves_the_release_and_is_off_by_default() -> None:
    assert release(ON) == first()
    assert "BackendTLSPolicy" not in {item["kind"] for item in rendered({}, program())}
