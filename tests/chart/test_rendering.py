"""What the chart renders: one release per slot, and all that KServe would otherwise add or leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from charts import documentation
from tests.chart.helm import CHART, HELMS, one, program, rendered

DIGEST = "sha256:" + "89abcdef" * 8
BOTH: dict[str, Any] = {"releases": {"b": {"bundle": {"storageUri": "s3://models/fraud/8", "digest": DIGEST}}}}
COLLOCATED: dict[str, Any] = {"transformer": {"placement": "collocated"}}
KNATIVE: dict[str, Any] = {"mode": "Knative", **COLLOCATED}
NONE: dict[str, Any] = {"transformer": {"placement": "none"}}
TOPOLOGIES = {"separate": {}, "collocated": COLLOCATED, "knative": KNATIVE, "none": NONE}


@pytest.fixture(scope="module", params=HELMS)
def helm(request: pytest.FixtureRequest) -> Path:
    return program(HELMS[request.param])


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> dict[str, Any]:
    return TOPOLOGIES[request.param]


def containers(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every container of services."""
    runtimes = [item["spec"]["containers"] for item in objects if item["kind"] == "ServingRuntime"]
    services = [item["spec"] for item in objects if item["kind"] == "InferenceService"]
    own = [part.get("containers", []) for service in services for part in service.values()]
    return [container for listed in (*runtimes, *own) for container in listed]


def backends(objects: list[dict[str, Any]]) -> list[list[tuple[str, int, int]]]:
    """Name, port and weight of the backends of each rule without the canary's header."""
    rules = one(objects, "HTTPRoute")["spec"]["rules"]
    free = [rule["backendRefs"] for rule in rules if "x-tabserve-canary" not in str(rule["matches"])]
    return sorted([(ref["name"], ref["port"], ref["weight"]) for ref in refs] for refs in free)


def test_pods_are_restricted_and_get_no_token(helm: Path, topology: dict[str, Any]) -> None:
    objects = rendered(topology, helm)
    service = one(objects, "InferenceService")["spec"]

    assert len(containers(objects)) == (1 if topology == NONE else 2)
    for container in containers(objects):
        security = container["securityContext"]
        assert security["runAsNonRoot"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (security["runAsUser"], security["runAsGroup"]) == (65532, 65532)
        assert {*container["resources"]["requests"], *container["resources"]["limits"]} == {"cpu", "memory"}
    for component in service.values():
        assert component["automountServiceAccountToken"] is False
        assert component["enableServiceLinks"] is False


def test_arguments_the_controller_would_append_are_given(helm: Path, topology: dict[str, Any]) -> None:
    for container in containers(rendered(topology, helm)):
        given = dict(argument.split("=") for argument in container["args"])
        assert given["--model_name"] == "fraud"
        assert given["--workers"] == "1"
        assert "--http_port" in given
        assert ("--predictor_host" in given) == ("transformer" in container["image"])


def test_onnxruntime_tells_its_vendor_nothing_unless_values_say_so(helm: Path, topology: dict[str, Any]) -> None:
    wanted = [{"name": "ORT_DISABLE_TELEMETRY", "value": "0"}]

    def told(values: dict[str, Any]) -> list[list[str]]:
        each = [container["env"] for container in containers(rendered(values, helm))]
        return sorted([one["value"] for one in env if one["name"] == "ORT_DISABLE_TELEMETRY"] for env in each)

    transformers = 0 if topology == NONE else 1
    assert told(topology) == [["1"]] * (1 + transformers)
    assert told({"predictor": {"env": wanted}, **topology}) == [["0"], *[["1"]] * transformers]


def test_the_release_is_of_what_answers_and_of_nothing_else(helm: Path) -> None:
    def release(**values: Any) -> str:
        return str(one(rendered(values, helm), "InferenceService")["metadata"]["annotations"]["tabserve/release"])

    first = release()
    same = [release(predictor={"resources": {"limits": {"cpu": "2"}}}), release(commonLabels={"team": "x"})]
    others = [
        release(modelName="other"),
        release(releases={"a": {"bundle": {"digest": DIGEST}}}),
        release(releases={"a": {"predictor": {"image": {"tag": "9"}}}}),
        release(transformer={"image": {"digest": DIGEST}}),
        release(predictor={"settings": {"max_rows": 9}}),
        release(transformer={"env": [{"name": "X", "value": "1"}]}),
    ]

    assert {*same} == {first}
    assert len({first, *others}) == 7


def test_trusted_types_are_a_setting_of_every_container_and_of_the_release(helm: Path) -> None:
    plain, trusted = (rendered(values, helm) for values in ({}, {"trusted": ["own.Model", "own.Step"]}))
    variables = [{each["name"]: each["value"] for each in part["env"]} for part in containers(trusted)]

    assert [each["TABSERVE_TRUSTED"] for each in variables] == ["own.Model,own.Step"] * 2
    assert "TABSERVE_TRUSTED" not in str(plain)
    releases = {
        one(each, "InferenceService")["metadata"]["annotations"]["tabserve/release"] for each in (plain, trusted)
    }
    assert len(releases) == 2


def test_a_slot_is_a_pair_with_its_own_runtime(helm: Path) -> None:
    objects = rendered(BOTH, helm)
    services = {item["metadata"]["name"]: item for item in objects if item["kind"] == "InferenceService"}
    runtimes = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ServingRuntime"}

    assert [*services] == ["fraud-a", "fraud-b"]
    for name, service in services.items():
        release = service["metadata"]["annotations"]["tabserve/release"]
        runtime = runtimes[service["spec"]["predictor"]["model"]["runtime"]]
        (transformer,) = service["spec"]["transformer"]["containers"]
        pair = [transformer, *runtime["spec"]["containers"]]
        environments = [{variable["name"]: variable["value"] for variable in each["env"]} for each in pair]
        assert [environment["TABSERVE_RELEASE"] for environment in environments] == [release, release]
        assert f"--predictor_host={name}-predictor-pods:8080" in transformer["args"]


def test_the_route_splits_rest_and_grpc_alike(helm: Path) -> None:
    objects = rendered(BOTH | {"traffic": {"canary": "b", "canaryPercent": 20}}, helm)

    assert backends(objects) == [
        [("fraud-a-transformer", 80, 80), ("fraud-b-transformer", 80, 20)],
        [("fraud-a-transformer", 8081, 80), ("fraud-b-transformer", 8081, 20)],
    ]


def test_an_idle_slot_is_in_no_backend(helm: Path) -> None:
    assert backends(rendered(BOTH, helm)) == [[("fraud-a-transformer", 80, 100)], [("fraud-a-transformer", 8081, 100)]]


def test_the_rules_of_the_share_keep_their_places_when_a_canary_comes(helm: Path) -> None:
    before, after = (
        one(rendered(BOTH | {"traffic": {"canary": canary}}, helm), "HTTPRoute")["spec"]["rules"]
        for canary in ("", "b")
    )

    assert len(before) == 2
    assert len(after) == 4
    assert after[:2] == before


def test_knative_has_one_service_and_nothing_it_forbids(helm: Path) -> None:
    objects = rendered(KNATIVE | BOTH | {"traffic": {"canary": "b", "canaryPercent": 20}}, helm)
    service = one(objects, "InferenceService")
    ports = [container["ports"] for container in containers(objects) if "ports" in container]

    assert service["metadata"]["name"] == "fraud"
    assert service["spec"]["predictor"]["canaryTrafficPercent"] == 20
    assert service["spec"]["predictor"]["model"]["storageUri"] == "s3://models/fraud/8"
    assert ports == [[{"name": "http1", "containerPort": 8080, "protocol": "TCP"}]]
    assert all("lifecycle" not in container for container in containers(objects))
    forbidden = {"securityContext", "terminationGracePeriodSeconds", "topologySpreadConstraints"}
    assert forbidden.isdisjoint(service["spec"]["predictor"])
    assert {item["kind"] for item in objects}.isdisjoint({"HTTPRoute", "HorizontalPodAutoscaler"})


def test_a_fixed_number_of_replicas_has_no_autoscaler(helm: Path) -> None:
    objects = rendered({"predictor": {"autoscaling": {"enabled": False}, "replicas": 3}}, helm)
    predictor = one(objects, "InferenceService")["spec"]["predictor"]

    assert one(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "fraud-a-transformer"
    assert predictor["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    assert predictor["minReplicas"] == 3


def test_every_object_carries_the_common_labels(helm: Path, topology: dict[str, Any]) -> None:
    everything = {"podMonitor": {"enabled": True}, "networkPolicy": {"enabled": True}, "commonLabels": {"team": "risk"}}

    objects = rendered(topology | everything, helm)

    assert {"PodMonitor", "NetworkPolicy"} <= {item["kind"] for item in objects}
    assert [item["kind"] for item in objects if item["metadata"]["labels"].get("team") != "risk"] == []


@pytest.mark.parametrize("changes", [{}, COLLOCATED], ids=["separate", "collocated"])
def test_a_baked_in_bundle_has_no_runtime_and_no_storage(helm: Path, changes: dict[str, Any]) -> None:
    objects = rendered(changes | {"releases": {"a": {"bundle": {"storageUri": ""}}}}, helm)

    assert len(containers(objects)) == 2
    assert "ServingRuntime" not in {item["kind"] for item in objects}
    assert "model" not in one(objects, "InferenceService")["spec"]["predictor"]
    assert all("STORAGE_URI" not in str(container["env"]) for container in containers(objects))


def test_extra_objects_are_templates(helm: Path) -> None:
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-mine"}}
    objects = rendered({"extraObjects": [extra]}, helm)

    assert "fraud-mine" in [item["metadata"]["name"] for item in objects]


def test_schema_and_readme_are_what_the_values_say() -> None:
    for name, content in documentation.contents().items():
        assert (CHART / name).read_text() == content, f"{name}: run `make chart-docs`"
