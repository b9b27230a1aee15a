"""What pods may reach, computed from what the values switch on; who may reach them is in test_rendering.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.helm import program, rendered, template
from tests.chart.sizing import KNATIVE
from tests.chart.test_rollout import GATED

DNS = {"ports": [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]}
PREDICTOR = {"serving.kserve.io/inferenceservice": "fraud-a", "component": "predictor"}
TO_PREDICTOR = {"to": [{"podSelector": {"matchLabels": PREDICTOR}}], "ports": [{"port": 8080}]}
Policies = dict[str, dict[str, Any]]


def policies(values: dict[str, Any]) -> Policies:
    """The specs of the policies, by name."""
    own = values.get("networkPolicy", {})
    objects = rendered({**values, "networkPolicy": {**own, "enabled": True}}, program())
    return {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "NetworkPolicy"}


def ports(policy: dict[str, Any]) -> set[int]:
    """The ports at which a pod may reach any address, besides DNS."""
    first, *rules = policy["egress"]
    assert first == DNS
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    return {each["port"] for rule in rules if "to" not in rule for each in rule["ports"]}


def of_services(values: dict[str, Any]) -> tuple[set[int], set[int]]:
    """What the transformer may reach, and the predictor."""
    found = policies({"releases": {"a": {"bundle": {"storageUri": "pvc://bundles/m"}}}, **values})
    return ports(found["fraud-a-transformer"]), ports(found["fraud-a-predictor"])


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ({}, True),
        ({"networkPolicy": {"enabled": False}}, False),
        (KNATIVE, False),
        ({**KNATIVE, "networkPolicy": {"enabled": True}}, True),
    ],
)
def test_policies_are_there_by_default_in_standard_mode(values: dict[str, Any], there: bool) -> None:
    assert ("NetworkPolicy" in {item["kind"] for item in rendered(values, program())}) == there


def test_without_anything_a_transformer_reaches_dns_and_its_predictor() -> None:
    found = policies({"releases": {"a": {"bundle": {"storageUri": "pvc://bundles/m"}}}})

    assert found["fraud-a-transformer"]["egress"] == [DNS, TO_PREDICTOR]
    assert found["fraud-a-predictor"]["egress"] == [DNS]


@pytest.mark.parametrize(
    ("values", "transformer", "predictor"),
    [
        ({"releases": {"a": {"bundle": {"storageUri": "s3://models/m"}}}}, {443}, {443}),
        ({"releases": {"a": {"bundle": {"storageUri": "https://host:8443/m.tar.gz"}}}}, {8443}, {8443}),
        ({"tracing": {"endpoint": "http://collector.obs:4318/v1/traces"}}, {4318}, {4318}),
        ({"tracing": {"endpoint": "https://collector/v1/traces"}}, {443}, {443}),
        ({"decisionLog": {"to": "s3://lake/log"}}, {443}, set()),
        ({"decisionLog": {"to": "/mnt/decisions", "claim": "decisions"}}, set(), set()),
        ({"decisionLog": {"to": "kafka://one:9093,two:9094/log"}}, {9093, 9094}, set()),
        (
            {"decisionLog": {"to": "s3://l/l", "env": [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}]}},
            {443, 9000},
            set(),
        ),
        ({"networkPolicy": {"extraEgress": [{"ports": [{"port": 9000}]}]}}, {9000}, {9000}),
    ],
)
def test_egress_is_what_the_values_switch_on(
    values: dict[str, Any], transformer: set[int], predictor: set[int]
) -> None:
    assert of_services(values) == (transformer, predictor)


def test_a_collocated_pod_reaches_what_both_of_its_services_need() -> None:
    values = {"transformer": {"placement": "collocated"}, "decisionLog": {"to": "s3://lake/log"}}
    found = policies({"releases": {"a": {"bundle": {"storageUri": "pvc://bundles/m"}}}, **values})

    assert [*found] == ["fraud-a-predictor"]
    assert found["fraud-a-predictor"]["egress"] == [DNS, {"ports": [{"port": 443}]}]


def test_jobs_and_the_stream_reach_what_they_read_and_write() -> None:
    found = policies(
        {
            "releases": {"a": {"bundle": {"storageUri": "pvc://bundles/m"}}},
            "decisionLog": {"to": "s3://lake/log"},
            "batch": {"enabled": True, "source": "/in", "target": "gs://lake/out"},
            "monitor": {"enabled": True, "notify": "http://events:8080/x", "pushgateway": "http://push:9091"},
            "stream": {
                "enabled": True,
                "config": {"bootstrap": "one:9093,two:9094", "group": "g", "in": "i", "out": "o", "dead": "d"},
            },
        }
    )

    assert ports(found["fraud-batch"]) == {443}
    assert ports(found["fraud-monitor"]) == {443, 8080, 9091}
    assert ports(found["fraud-stream"]) == {9093, 9094}
    assert [found[f"fraud-{name}"]["ingress"] for name in ("batch", "monitor", "stream")] == [
        [],
        [],
        [{"ports": [{"port": 8082}]}],
    ]


def test_the_gate_alone_reaches_the_api_server() -> None:
    found = policies({**GATED, "rollout": {**GATED["rollout"], "prometheus": "http://prometheus:9090"}})
    gate, *services = found["fraud-rollout"], *(spec for name, spec in found.items() if name != "fraud-rollout")
    reached = [rule for rule in gate["egress"] if "to" in rule]

    assert {443, 6443, 9090} <= ports(gate)
    assert len(services) == len(reached) == 4
    assert all(rule["ports"] == [{"port": 8080}, {"port": 8082}] for rule in reached)
    assert all(6443 not in ports(each) for each in services)


def test_helm_test_may_call_as_clients_may() -> None:
    found = policies({"networkPolicy": {"from": [{"namespaceSelector": {}}]}})
    asked = {"podSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "fraud-test"}}}

    assert asked in found["fraud-a-transformer"]["ingress"][0]["from"]
    assert asked not in found["fraud-a-predictor"]["ingress"][0]["from"]


def test_a_storage_whose_ports_are_not_known_wants_them_named() -> None:
    values: dict[str, Any] = {"releases": {"a": {"bundle": {"storageUri": "hdfs://models/m"}}}}
    done = template({**values, "networkPolicy": {"enabled": True}}, program())
    named = {"enabled": True, "extraEgress": [{"ports": [{"port": 8020}]}]}

    assert "allow them in networkPolicy.extraEgress" in done.stderr
    assert template({**values, "networkPolicy": named}, program()).returncode == 0
    assert template({**values, "networkPolicy": {"enabled": False}}, program()).returncode == 0
