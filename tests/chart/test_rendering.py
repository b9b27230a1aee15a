"""What the chart renders: one release per slot, and all that KServe would otherwise add or leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from charts import documentation
from tabserve.inference.settings import read
from tabserve_transformer.settings import Settings as TransformerSettings
from tests.chart.helm import CHART, CI, HELMS, lint, one, program, rendered

DIGEST = "sha256:" + "89abcdef" * 8
BOTH: dict[str, Any] = {"releases": {"b": {"bundle": {"storageUri": "s3://models/fraud/8", "digest": DIGEST}}}}
COLLOCATED: dict[str, Any] = {"transformer": {"placement": "collocated"}}
KNATIVE: dict[str, Any] = {"mode": "Knative", **COLLOCATED}
TOPOLOGIES = ["standard", "collocated", "knative", "predictor"]


@pytest.fixture(scope="module", params=HELMS)
def helm(request: pytest.FixtureRequest) -> Path:
    return program(HELMS[request.param])


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> dict[str, Any]:
    return given(request.param)


def given(name: str) -> dict[str, Any]:
    """The values of one of the chart's `ci` files."""
    values: dict[str, Any] = yaml.safe_load(CI[name].read_text())
    return values


def services(topology: dict[str, Any]) -> list[str]:
    """The services of a topology."""
    return ["predictor"] if topology == given("predictor") else ["predictor", "transformer"]


def containers(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every container of the services."""
    runtimes = [item["spec"]["containers"] for item in objects if item["kind"] == "ServingRuntime"]
    services = [item["spec"] for item in objects if item["kind"] == "InferenceService"]
    own = [part.get("containers", []) for service in services for part in service.values()]
    return [container for listed in (*runtimes, *own) for container in listed]


def backends(objects: list[dict[str, Any]]) -> list[list[tuple[str, int, int]]]:
    """Name, port and weight of the backends of each rule without the canary's header."""
    rules = one(objects, "HTTPRoute")["spec"]["rules"]
    free = [rule["backendRefs"] for rule in rules if "x-tabserve-canary" not in str(rule["matches"])]
    return sorted([(ref["name"], ref["port"], ref["weight"]) for ref in refs] for refs in free)


@pytest.mark.parametrize("name", CI)
def test_helm_lint_is_content_with_the_values_of_ci(helm: Path, name: str) -> None:
    done = lint(CI[name], helm)

    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout


def test_everything_is_rendered(helm: Path) -> None:
    kinds = {item["kind"] for item in rendered(given("everything"), helm)}

    assert kinds >= {
        "InferenceService",
        "ServingRuntime",
        "HTTPRoute",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    assert kinds >= {
        "BackendTLSPolicy",
        "PodMonitor",
        "PrometheusRule",
        "NetworkPolicy",
        "ServiceAccount",
        "Service",
        "ConfigMap",
        "Pod",
    }


def test_services_take_what_pods_say_unless_they_or_the_release_say_otherwise(helm: Path) -> None:
    pods = {"settings": {"max_rows": 7, "keep_alive": 9}, "preStopSeconds": 31, "resources": {"limits": {"cpu": "3"}}}
    everyone = {"priorityClassName": "high", "env": [{"name": "TZ", "value": "UTC"}]}
    own = {"settings": {"max_rows": 8}, "preStopSeconds": 0, "spreadOver": "", "priorityClassName": "", "env": []}
    of_release = {"predictor": {"settings": {"max_rows": 9}}}
    objects = rendered({"pods": pods | everyone, "predictor": own, "releases": {"a": of_release}}, helm)
    spec = one(objects, "InferenceService")["spec"]
    (transformer,) = spec["transformer"]["containers"]
    (predictor,) = one(objects, "ServingRuntime")["spec"]["containers"]

    assert variables(transformer).items() >= {"TABSERVE_MAX_ROWS": "7", "TABSERVE_KEEP_ALIVE": "9", "TZ": "UTC"}.items()
    assert variables(predictor).items() >= {"TABSERVE_MAX_ROWS": "9", "TABSERVE_KEEP_ALIVE": "9"}.items()
    assert "TZ" not in variables(predictor)
    assert [each["lifecycle"]["preStop"]["sleep"]["seconds"] for each in (predictor, transformer)] == [0, 31]
    assert [each["resources"]["limits"]["cpu"] for each in (predictor, transformer)] == ["3", "3"]
    assert [each["resources"]["limits"]["memory"] for each in (predictor, transformer)] == ["1Gi", "512Mi"]
    assert spec["transformer"]["priorityClassName"] == "high"
    assert "topologySpreadConstraints" in spec["transformer"]
    assert {"priorityClassName", "topologySpreadConstraints"}.isdisjoint(spec["predictor"])


def test_a_volume_of_both_services_stands_once_in_their_pod(helm: Path) -> None:
    volume = {"name": "certificates", "secret": {"secretName": "certificates"}}
    mount = {"name": "certificates", "mountPath": "/certificates"}
    pods = {"pods": {"extraVolumes": [volume], "extraVolumeMounts": [mount]}}
    runtime = one(rendered(COLLOCATED | pods, helm), "ServingRuntime")["spec"]

    assert [each["name"] for each in runtime["volumes"]] == ["tmp", "certificates"]
    assert [mount in container["volumeMounts"] for container in runtime["containers"]] == [True, True]


def variables(container: dict[str, Any]) -> dict[str, str]:
    """A container's environment."""
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("image", [{"repository": "registry.example:5000/x"}, {"repository": "12", "tag": "1.20"}])
def test_images_are_text_whatever_they_are_called(helm: Path, image: dict[str, str]) -> None:
    objects = rendered({"predictor": {"image": image}, "transformer": {"placement": "none"}}, helm)
    (container,) = containers(objects)
    tested = one(objects, "Pod")["spec"]["containers"][0]

    assert container["image"] == tested["image"]
    assert container["image"].startswith(f"{image['repository']}:{image.get('tag', '')}")


def test_helm_test_has_the_resources_of_who_is_asked(helm: Path) -> None:
    resources = {"limits": {"memory": "7Gi"}}
    objects = rendered({"transformer": {"resources": resources}}, helm)
    (transformer,) = one(objects, "InferenceService")["spec"]["transformer"]["containers"]

    assert one(objects, "Pod")["spec"]["containers"][0]["resources"] == transformer["resources"]
    assert transformer["resources"]["limits"] == {"cpu": "1", "memory": "7Gi", "ephemeral-storage": "2Gi"}


def test_where_nodes_do_not_measure_their_disk_nothing_is_asked_of_it(helm: Path) -> None:
    nothing = {kind: {"ephemeral-storage": None} for kind in ("requests", "limits")}
    found = containers(rendered({"pods": {"resources": nothing}}, helm))

    assert [{*each["resources"]["requests"], *each["resources"]["limits"]} for each in found] == [{"cpu", "memory"}] * 2


def test_pods_are_restricted_and_get_no_token(helm: Path, topology: dict[str, Any]) -> None:
    objects = rendered(topology, helm)
    service = one(objects, "InferenceService")["spec"]

    assert len(containers(objects)) == len(services(topology))
    for container in containers(objects):
        security = container["securityContext"]
        assert security["runAsNonRoot"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (security["runAsUser"], security["runAsGroup"]) == (65532, 65532)
        resources = {"cpu", "memory", "ephemeral-storage"}
        assert {*container["resources"]["requests"]} == {*container["resources"]["limits"]} == resources
    for component in service.values():
        assert component["automountServiceAccountToken"] is False
        assert component["enableServiceLinks"] is False


def test_arguments_the_controller_would_append_are_given(helm: Path, topology: dict[str, Any]) -> None:
    found = containers(rendered(topology, helm))

    assert sorted(container["image"].split(":")[0] for container in found) == [
        f"tabserve-{service}" for service in services(topology)
    ]
    for container in found:
        arguments = dict(argument.split("=") for argument in container["args"])
        assert arguments["--model_name"] == "fraud"
        assert arguments["--workers"] == "1"
        assert "--http_port" in arguments
        assert ("--predictor_host" in arguments) == ("transformer" in container["image"])


def test_onnxruntime_tells_its_vendor_nothing_unless_values_say_so(helm: Path, topology: dict[str, Any]) -> None:
    wanted = [{"name": "ORT_DISABLE_TELEMETRY", "value": "0"}]

    def told(values: dict[str, Any]) -> list[list[str]]:
        each = [container["env"] for container in containers(rendered(values, helm))]
        return sorted([one["value"] for one in env if one["name"] == "ORT_DISABLE_TELEMETRY"] for env in each)

    transformers = len(services(topology)) - 1
    assert told(topology) == [["1"]] * (1 + transformers)
    assert told({"predictor": {"env": wanted}, **topology}) == [["0"], *[["1"]] * transformers]
    assert told({"pods": {"env": wanted}, **topology}) == [["0"]] * (1 + transformers)


@pytest.mark.parametrize(
    ("topology", "drains", "grace"),
    [
        ("standard", {}, {"predictor": 35, "transformer": 35}),
        ("standard", {"predictor": 0.5, "transformer": 60}, {"predictor": 16, "transformer": 75}),
        ("collocated", {"predictor": 0, "transformer": 60}, {"predictor": 75}),
        ("predictor", {"predictor": 0}, {"predictor": 15}),
    ],
)
def test_pods_have_the_time_to_sleep_to_drain_and_to_end(
    helm: Path, topology: str, drains: dict[str, float], grace: dict[str, int]
) -> None:
    values = given(topology)
    changes = {name: {**values.get(name, {}), "settings": {"drain_seconds": drains[name]}} for name in drains}
    spec = one(rendered(values | changes, helm), "InferenceService")["spec"]

    assert {name: part["terminationGracePeriodSeconds"] for name, part in spec.items()} == grace


def test_the_chart_knows_how_long_services_drain_by_default() -> None:
    drains = [msgspec.structs.fields(service) for service in documentation.OF_SERVICES.values()]

    assert [field.default for fields in drains for field in fields if field.name == "drain_seconds"] == [20, 20]


def test_trusted_types_are_a_setting_of_every_container(helm: Path) -> None:
    plain, trusted = (rendered(values, helm) for values in ({}, {"trusted": ["own.Model", "own.Step"]}))

    assert [variables(each)["TABSERVE_TRUSTED"] for each in containers(trusted)] == ["own.Model,own.Step"] * 2
    assert "TABSERVE_TRUSTED" not in str(plain)


CREDENTIALS = {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "store", "key": "id"}}}
LOGGED: dict[str, Any] = {
    "to": "/mnt/decisions/fraud",
    "claim": "decisions",
    "hashSecret": "decisions-key",
    "sample": 0.25,
    "always": ["block", "review"],
    "fileSeconds": 30,
    "env": [CREDENTIALS],
}


@pytest.mark.parametrize("name", ["standard", "collocated"])
def test_the_decision_log_is_the_transformers(helm: Path, name: str) -> None:
    objects = rendered(given(name) | {"decisionLog": LOGGED}, helm)
    (logging,) = [each for each in containers(objects) if "TABSERVE_DECISION_LOG" in str(each["env"])]

    assert "tabserve-transformer" in logging["image"]
    assert CREDENTIALS in logging["env"]
    told = {each["name"]: each["value"] for each in logging["env"] if each["name"].startswith("TABSERVE_DECISION")}
    assert told == {
        "TABSERVE_DECISION_LOG": "/mnt/decisions/fraud",
        "TABSERVE_DECISION_LOG_SAMPLE": "0.25",
        "TABSERVE_DECISION_LOG_ALWAYS": "block,review",
        "TABSERVE_DECISION_LOG_BUFFER_ROWS": "20000",
        "TABSERVE_DECISION_LOG_BUFFER_BYTES": "33554432",
        "TABSERVE_DECISION_LOG_FILE_SECONDS": "30",
        "TABSERVE_DECISION_LOG_FILE_ROWS": "100000",
        "TABSERVE_DECISION_LOG_HASH_KEY_FILE": "/mnt/hash-key/key",
    }
    assert read(TransformerSettings, {"predictor_host": "p"}, told).always_logged == ("block", "review")
    assert {"name": "decisions", "mountPath": "/mnt/decisions"} in logging["volumeMounts"]
    assert {"name": "hash-key", "mountPath": "/mnt/hash-key", "readOnly": True} in logging["volumeMounts"]
    assert str(objects).count("'claimName': 'decisions'") == 1
    assert str(objects).count("'secretName': 'decisions-key'") == 1


@pytest.mark.parametrize(("name", "grace"), [("standard", [35, 40]), ("collocated", [40])])
def test_pods_have_the_time_to_write_what_the_log_holds(helm: Path, name: str, grace: list[int]) -> None:
    spec = one(rendered(given(name) | {"decisionLog": LOGGED}, helm), "InferenceService")["spec"]

    assert sorted(part["terminationGracePeriodSeconds"] for part in spec.values()) == grace


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
        assert [variables(each)["TABSERVE_RELEASE"] for each in pair] == [release, release]
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


def test_every_rule_says_which_way_a_request_came_and_lets_no_client_say_it(helm: Path) -> None:
    rules = one(rendered(BOTH | {"traffic": {"canary": "b", "canaryPercent": 20}}, helm), "HTTPRoute")["spec"]["rules"]
    found = [
        ("x-tabserve-canary" in str(rule["matches"]), [part["requestHeaderModifier"] for part in rule["filters"]])
        for rule in rules
    ]
    split = {"remove": ["tabserve-arm", "tabserve-shadow"]}
    forced = {"set": [{"name": "tabserve-arm", "value": "forced"}], "remove": ["tabserve-shadow"]}

    assert found == [(False, [split]), (False, [split]), (True, [forced]), (True, [forced])]


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
    contents = documentation.contents()

    assert [*contents] == ["values.schema.json", "README.md"]
    for name, content in contents.items():
        assert (CHART / name).read_text() == content, f"{name}: run `make chart-docs`"


def probed(container: dict[str, Any]) -> dict[str, Any]:
    """Of each probe what it asks: the port of HTTP, or the question of gRPC."""
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    return {name: probe["httpGet"]["port"] if "httpGet" in probe else probe["grpc"] for name, probe in probes.items()}


def at(port: int) -> dict[str, Any]:
    return dict.fromkeys(("startup", "readiness", "liveness"), port)


@pytest.mark.parametrize("changes", [{}, {"transformer": {"placement": "none"}}], ids=["separate", "none"])
def test_probes_and_prometheus_ask_at_the_admin_port(helm: Path, changes: dict[str, Any]) -> None:
    objects = rendered(changes | {"podMonitor": {"enabled": True}}, helm)
    predictor = one(objects, "InferenceService")["spec"]["predictor"]

    for container in containers(objects):
        assert "--admin_port=8082" in container["args"]
        assert probed(container) == at(8082)
    assert predictor["annotations"]["prometheus.io/port"] == "8082"
    assert scraped(objects) == [(8080, "${1}:8082", None)]


def scraped(objects: list[dict[str, Any]]) -> list[tuple[int, str, str | None]]:
    """Of each endpoint of the PodMonitor the port that pods are found by, what it becomes, and the container's name."""
    found = []
    for endpoint in one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]:
        made = {relabeling["targetLabel"]: relabeling["replacement"] for relabeling in endpoint["relabelings"]}
        found.append((endpoint["portNumber"], made["__address__"], made.get("container")))
    return found


def test_the_services_of_one_pod_have_an_admin_port_each(helm: Path) -> None:
    objects = rendered(COLLOCATED | {"podMonitor": {"enabled": True}}, helm)
    by_name = {container["name"]: container for container in containers(objects)}

    for name, port in (("transformer-container", 8082), ("kserve-container", 8086)):
        assert f"--admin_port={port}" in by_name[name]["args"]
        assert probed(by_name[name]) == at(port)
    assert sorted(scraped(objects)) == [
        (8080, "${1}:8082", "transformer-container"),
        (8080, "${1}:8086", "kserve-container"),
    ]


@pytest.mark.parametrize(("port", "named", "live"), [("rest", 8080, 8080), ("grpc", 8081, {"port": 8081})])
def test_knative_is_asked_for_liveness_where_it_asks_itself(helm: Path, port: str, named: int, live: Any) -> None:
    features = {"port": port, "features": ["multi-container-probing"]}
    objects = rendered(KNATIVE | {"knative": features, "podMonitor": {"enabled": True}}, helm)
    by_name = {container["name"]: container for container in containers(objects)}

    assert probed(by_name["transformer-container"]) == at(8082) | {"liveness": live}
    assert probed(by_name["kserve-container"]) == at(8086)
    assert {found for found, *_ in scraped(objects)} == {named}


def test_a_network_policy_tells_callers_from_those_who_read_metrics(helm: Path) -> None:
    callers: list[dict[str, Any]] = [{"namespaceSelector": {}}]
    scrapers = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    policy = {"networkPolicy": {"enabled": True, "from": callers, "metricsFrom": scrapers}}
    objects = [item for item in rendered(policy, helm) if item["kind"] == "NetworkPolicy"]
    rules = {item["metadata"]["name"]: item["spec"]["ingress"] for item in objects}
    transformer = {"serving.kserve.io/inferenceservice": "fraud-a", "component": "transformer"}
    calls, metrics = [{"port": 8080}, {"port": 8081}], {"ports": [{"port": 8082}], "from": scrapers}
    test = {"podSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "fraud-test"}}}

    assert rules["fraud-a-transformer"] == [{"ports": calls, "from": [*callers, test]}, metrics]
    everyone = [*callers, {"podSelector": {"matchLabels": transformer}}]
    assert rules["fraud-a-predictor"] == [{"ports": calls, "from": everyone}, metrics]


def test_a_network_policy_without_peers_is_for_everyone_but_at_the_predictor(helm: Path) -> None:
    objects = rendered({"networkPolicy": {"enabled": True}}, helm)
    rules = [item["spec"]["ingress"] for item in objects if item["kind"] == "NetworkPolicy"]

    assert [["from" in rule for rule in found] for found in rules] == [[True, False], [False, False]]


def test_the_route_leads_every_path(helm: Path) -> None:
    """Routes with longer prefixes come before it, and it takes what they leave."""
    rules = one(rendered(BOTH | {"traffic": {"canary": "b", "canaryPercent": 20}}, helm), "HTTPRoute")["spec"]["rules"]
    paths = [match["path"] for rule in rules for match in rule["matches"]]

    assert paths
    assert all(path == {"type": "PathPrefix", "value": "/"} for path in paths)


BUCKET: dict[str, Any] = {"to": "s3://lake/log?region=eu", "env": [{"name": "AWS_REGION", "value": "eu"}]}
DECISIONS = {"name": "decisions", "mountPath": "/mnt/decisions"}


def job(objects: list[dict[str, Any]], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod that a CronJob makes, and its container."""
    (found,) = (item for item in objects if item["kind"] == "CronJob" and item["metadata"]["name"] == f"fraud-{name}")
    assert found["spec"]["concurrencyPolicy"] == "Forbid"
    pod: dict[str, Any] = found["spec"]["jobTemplate"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    return pod, container


@pytest.mark.parametrize("name", ["batch", "monitor"])
def test_a_job_is_a_restricted_pod_with_the_stable_bundle(helm: Path, name: str) -> None:
    pod, container = job(rendered(given("everything"), helm), name)
    annotation = "internal.serving.kserve.io/storage-initializer-sourceuri"

    assert pod["metadata"]["annotations"][annotation] == "s3://models/fraud/7"
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["image"] == "tabserve-batch:0.2.0"


def test_a_batch_scores_files_with_the_stable_bundle(helm: Path) -> None:
    bundle = given("everything")["releases"]["a"]["bundle"]

    assert job(rendered(given("everything"), helm), "batch")[1]["args"] == [
        *("score", "/mnt/models", "s3://lake/payments", "s3://lake/decided", f"--digest={bundle['digest']}"),
        *("--trusted=own.Model", "--on-error=record", "--keep=payment_id"),
    ]


def test_a_monitor_reads_the_log_on_its_volume_and_tells_whom_a_secret_names(helm: Path) -> None:
    pod, container = job(rendered(given("everything"), helm), "monitor")
    digest = given("everything")["releases"]["a"]["bundle"]["digest"]

    assert container["args"] == [
        *("monitor", "/mnt/decisions/fraud", "--bundle=/mnt/models", f"--digest={digest}"),
        *(f"--out=/mnt/decisions/fraud/_monitor/{digest[7:19]}", "--exit-zero", "--labels=s3://lake/outcomes"),
        "--notify=$(RETRAIN_URL)",
        "--push=http://pushgateway.monitoring:9091/metrics/job/tabserve-monitor/namespace/models/release/fraud",
        "--tolerance=score=0.1",
    ]
    assert [each["name"] for each in container["env"]] == ["ORT_DISABLE_TELEMETRY", "OMP_WAIT_POLICY", "RETRAIN_URL"]
    assert DECISIONS in container["volumeMounts"]
    assert {"name": "decisions", "persistentVolumeClaim": {"claimName": "decisions"}} in pod["spec"]["volumes"]


@pytest.mark.parametrize(
    ("given_out", "folder"),
    [("", "s3://lake/log/_monitor"), ("s3://lake/found/?region=eu", "s3://lake/found")],
)
def test_a_monitor_keeps_a_folder_for_each_bundle_in_the_store(helm: Path, given_out: str, folder: str) -> None:
    values = {"decisionLog": BUCKET, "monitor": {"enabled": True, "out": given_out}}
    both = BOTH["releases"] | {"a": {"bundle": {"digest": "sha256:" + "12345678" * 8}}}
    for slot, digest in (("a", "123456781234"), ("b", "89abcdef89ab")):
        pod, container = job(rendered(values | {"releases": both, "traffic": {"stable": slot}}, helm), "monitor")

        assert container["args"][1] == "s3://lake/log?region=eu"
        assert f"--out={folder}/{digest}?region=eu" in container["args"]
        assert {"name": "AWS_REGION", "value": "eu"} in container["env"]
        assert [each["name"] for each in pod["spec"]["volumes"]] == ["tmp"]


def test_the_page_is_shown_where_clients_reach_the_release(topology: dict[str, Any]) -> None:
    objects = rendered({**topology, "page": True}, program())
    setting = {"name": "TABSERVE_PAGE", "value": "true"}
    reached = f"tabserve-{services(topology)[-1]}"

    assert [setting in each["env"] for each in containers(objects)] == [
        reached in each["image"] for each in containers(objects)
    ]
    assert "TABSERVE_PAGE" not in str(rendered(topology, program()))
