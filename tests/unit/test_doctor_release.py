"""`tabserve doctor RELEASE`: each known cause is named with its remedy, and what is not known is shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from click.testing import CliRunner, Result

from tabserve.cli import main
from tabserve.doctor.api import Absent, Forbidden
from tabserve.doctor.causes import CAUSES
from tabserve.doctor.diagnosis import Diagnosis, diagnose
from tabserve.doctor.reading import look
from tabserve.doctor.seen import redacted
from tabserve.rollout.checks import Rules
from tabserve.rollout.state import Slot, State
from tests.unit.release_objects import (
    AUTOSCALERS,
    CLAIMS,
    CLASS,
    DIGEST,
    GATEWAY,
    NAMESPACED,
    NOW,
    ROUTES,
    SERVICES,
    Release,
    ago,
)

Breakage: TypeAlias = Callable[[Release], None]
A, B = "pump-a-predictor", "pump-b-predictor"
TRANSFORMER = "pump-b-transformer"


def diagnosed(release: Release, name: str = "pump") -> Diagnosis:
    return diagnose(look(release.read, "models", name, NOW))


def rolled(phase: Any, told: str) -> str:
    """The state of a gate's rollout."""
    rules, slots = Rules(), (Slot("a", "release-a"), Slot("b", "release-b"))
    return State("pump", "models", *slots, rules, [5], "2026-11-30T12:00:00Z", phase=phase, told=told).text()


def gate(release: Release, state: str) -> None:
    release.objects[f"{NAMESPACED}/configmaps/pump-rollout"] = {
        "metadata": {"name": "pump-rollout"},
        "data": {"state.json": state},
    }


def young(release: Release) -> None:
    release.stop(B)
    release.pod(B)["metadata"]["creationTimestamp"] = ago(20)


def named_claim(release: Release, **claim: Any) -> None:
    """A bundle on a claim `bundles`, which is there if anything is said of it."""
    release.objects[f"{SERVICES}/pump-b"]["spec"]["predictor"]["model"]["storageUri"] = "pvc://bundles/pump"
    if claim:
        release.objects[f"{CLAIMS}/bundles"] = {"metadata": {"name": "bundles"}, "status": claim}


def unreached(release: Release) -> None:
    del release.objects[f"{NAMESPACED}/services/pump-b-predictor-pods"]
    release.stop(TRANSFORMER, state={"running": {}})
    event = {"event": "predictor_gone", "message": "the predictor at pump-b-predictor-pods:8080 does not answer: wait"}
    release.logs[f"{TRANSFORMER}-x", "kserve-container"] = json.dumps(event)


def killed(release: Release) -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": ago(60)}}
    release.stop(B, state={"running": {}}, lastState=ended, restartCount=3)


def scaled_without_metrics(release: Release) -> None:
    condition = {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "no API"}
    release.objects[f"{AUTOSCALERS}/pump-a"] = {
        "metadata": {"name": "pump-a-predictor-scaling", "labels": {"app.kubernetes.io/instance": "pump"}},
        "status": {"conditions": [{**condition, "lastTransitionTime": ago(600)}]},
    }


def route(release: Release, kind: str, reason: str) -> None:
    listed = release.objects[f"{ROUTES}/pump"]["status"]["parents"][0]["conditions"]
    (found,) = (one for one in listed if one["type"] == kind)
    found |= {"status": "False", "reason": reason, "message": "told by the gateway"}


def without(path: str) -> Breakage:
    def remove(release: Release) -> None:
        del release.objects[path]

    return remove


FORBIDDEN = 'pods "pump-b-predictor-x" is forbidden:'
OTHER_DIGEST = f"bundle.json: expected digest {DIGEST}, got sha256:00. Give the bundle with that digest."
REFUSED = {
    "quota": f"{FORBIDDEN} exceeded quota: tight, requested: pods=1",
    "limits": f"{FORBIDDEN} maximum memory usage per Container is 1Mi, but limit is 1Gi",
    "pod-security": f'{FORBIDDEN} violates PodSecurity "restricted:latest": allowPrivilegeEscalation',
    "service-account": 'error looking up service account models/s: serviceaccount "s" not found',
    "admission": 'admission webhook "policy" denied the request',
}
UNPLACED = {
    "no-room": "0/1 nodes are available: 1 Insufficient cpu.",
    "no-node": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
}
WAITING = {
    "image": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'},
    "missing-object": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'},
}
FETCHED = {
    "store-credentials": "RuntimeError: Invalid AWS credentials. Verify AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "bundle-not-found": "RuntimeError: Failed to fetch model. No model found in pump.",
    "no-store": 'EndpointConnectionError: Could not connect to the endpoint URL: "http://s3/models"',
}
ENDED = {
    "bundle-not-found": "/mnt/models/bundle.json: missing, so this is not a bundle. Give a bundle's folder.",
    "wrong-digest": OTHER_DIGEST,
    "unsigned": "bundle.sig: missing, so the bundle is not signed. Sign it.",
    "wrong-signature": "bundle.sig: was not made by a key in /mnt/trust/own.pub. Sign it.",
    "trust-key": "/mnt/trust/own.pub: cannot be read: No such file or directory. Give one.",
    "not-proven": "model.ubj: xgboost does not repeat the reference answers: row 3. Save the bundle again.",
    "missing-library": "lightgbm is not installed. In a checkout of tabserve, run: pip install '.[lightgbm]'.",
    "bundle-refused": "schema.yaml: expected task binary, got regression. Save the bundle again.",
}
ROLLED = {phase: f"told of {phase}" for phase in ("held", "back", "undecided")}


def refusing(message: str) -> Breakage:
    return lambda release: release.refuse(B, message)


def unplacing(message: str) -> Breakage:
    return lambda release: release.unplace(B, message)


def waiting(state: dict[str, str]) -> Breakage:
    return lambda release: release.stop(B, state={"waiting": state})


def fetching(line: str) -> Breakage:
    return lambda release: release.fetch(B, "Traceback (most recent call last):", line)


def ending(message: str) -> Breakage:
    return lambda release: release.end(B, message)


def rolling(phase: str, told: str) -> Breakage:
    return lambda release: gate(release, rolled(phase, told))


def mistyped(release: Release) -> None:
    release.end(B, "")
    release.logs[f"{B}-x", "kserve-container"] = (
        "Usage: x\n\nError: unknown variable TABSERVE_X; known are TABSERVE_Y\n"
    )


def no_claim(release: Release) -> None:
    named_claim(release)
    release.unplace(B, '0/1 nodes are available: persistentvolumeclaim "bundles" not found.')


def unbound_claim(release: Release) -> None:
    named_claim(release, phase="Pending")
    told = "no persistent volumes available for this claim and no storage class is set"
    release.warn("bundles", told, "FailedBinding", "PersistentVolumeClaim", "Normal")
    release.unplace(B, "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found")


def unmounted(release: Release) -> None:
    release.stop(B, state={"waiting": {"reason": "ContainerCreating"}})
    release.warn(f"{B}-x", 'MountVolume.SetUp failed for volume "trust" : configmap "signers" not found', "FailedMount")


def unready(release: Release) -> None:
    release.stop(B)
    release.warn(f"{B}-x", "Readiness probe failed: 503", "Unhealthy")


def unseen(release: Release) -> None:
    del release.objects[f"{SERVICES}/pump-b"]["status"]


def unaccepted(release: Release) -> None:
    release.objects[GATEWAY]["status"] = {}


def unrouted(release: Release) -> None:
    release.objects[f"{ROUTES}/pump"]["status"] = {}


def scaled_to_none(release: Release) -> None:
    release.stop(B)
    release.deployment(B)["spec"]["replicas"] = 0
    del release.objects[f"{NAMESPACED}/pods/{B}-x"]


BREAKAGES: list[tuple[str, Breakage, str]] = [
    *((name, refusing(message), message) for name, message in REFUSED.items()),
    *((name, unplacing(message), message) for name, message in UNPLACED.items()),
    *((name, waiting(state), state["message"]) for name, state in WAITING.items()),
    *((name, fetching(line), line) for name, line in FETCHED.items()),
    *((name, ending(message), message) for name, message in ENDED.items()),
    *((f"rollout-{phase}", rolling(phase, told), told) for phase, told in ROLLED.items()),
    ("wrong-setting", mistyped, "Error: unknown variable TABSERVE_X; known are TABSERVE_Y"),
    ("missing-object", unmounted, 'configmap "signers" not found'),
    ("claim-missing", no_claim, 'persistentvolumeclaim "bundles" not found'),
    ("claim-pending", unbound_claim, "bundles: no persistent volumes available"),
    ("out-of-memory", killed, "its limit is 1Gi; 3 restarts"),
    ("predictor-unreachable", unreached, "there is no Service pump-b-predictor-pods"),
    ("no-controller", unseen, "it has no status"),
    ("no-gateway", without(GATEWAY), "there is no Gateway kserve/kserve-ingress-gateway"),
    ("gateway-class", without(CLASS), "there is no GatewayClass envoy"),
    ("gateway-class", unaccepted, "not accepted"),
    ("route-refused", lambda release: route(release, "Accepted", "NotAllowedByListeners"), "NotAllowedByListeners"),
    ("route-refused", unrouted, "no Gateway has looked at it"),
    ("route-backend", lambda release: route(release, "ResolvedRefs", "BackendNotFound"), "BackendNotFound"),
    ("rollout-damaged", lambda release: gate(release, "{"), "is no state of a rollout"),
    ("no-metrics", scaled_without_metrics, "FailedGetResourceMetric: no API"),
    ("starting", young, "0 of 1 pods Ready"),
    ("not-ready", unready, "0 of 1 pods Ready; Readiness probe failed: 503"),
    ("not-ready", scaled_to_none, "scaled to 0 pods"),
]


@pytest.mark.parametrize(("name", "breakage", "found"), BREAKAGES, ids=[one[0] for one in BREAKAGES])
def test_the_cause_is_named(name: str, breakage: Breakage, found: str) -> None:
    release = Release("a", "b")
    breakage(release)
    told = diagnosed(release)

    assert [one.cause for one in told.findings] == [name]
    assert found in told.findings[0].found
    assert told.findings[0].where
    assert "{" not in told.findings[0].remedy
    assert (told.status, told.unexplained) == (1, [])


def test_each_cause_is_broken_here_but_that_there_is_no_release() -> None:
    assert {cause.name for cause in CAUSES} - {name for name, *_ in BREAKAGES} == {"no-release"}


def test_a_healthy_release_has_no_cause() -> None:
    told = diagnosed(Release("a", "b"))

    assert (told.status, told.findings, told.unexplained) == (0, [], [])


def test_a_release_that_is_not_there_is_told_with_those_that_are() -> None:
    told = diagnosed(Release("a"), "pumps")

    assert [one.cause for one in told.findings] == ["no-release"]
    assert "there are pump" in told.findings[0].found


def test_one_cause_at_both_services_of_a_slot_is_told_once() -> None:
    release = Release("a", "b")
    for workload in (B, TRANSFORMER):
        release.end(workload, OTHER_DIGEST)
    (found,) = diagnosed(release).findings

    assert found.where == [B, TRANSFORMER]
    assert "`releases.b.bundle.digest`" in found.remedy


def test_a_transformer_that_waits_for_its_broken_predictor_is_no_cause() -> None:
    release = Release("a", "b")
    release.end(B, ENDED["unsigned"])
    unreached(release)

    assert [one.cause for one in diagnosed(release).findings] == ["unsigned"]


def test_causes_of_both_slots_are_told() -> None:
    release = Release("a", "b")
    release.unplace(A, UNPLACED["no-room"])
    release.end(B, ENDED["unsigned"])

    assert [(one.cause, one.where) for one in diagnosed(release).findings] == [("no-room", [A]), ("unsigned", [B])]


def test_a_crash_without_a_known_cause_is_shown_with_its_log() -> None:
    release = Release("a", "b")
    release.end(B, "")
    release.logs[f"{B}-x", "kserve-container"] = "Traceback (most recent call last):\nZeroDivisionError: by zero\n"
    release.warn(f"{B}-x", "Back-off restarting failed container", "BackOff")
    told = diagnosed(release)
    facts = told.facts()

    assert told.status == 2
    assert told.unexplained == [f"{B}: 0 of 1 pods Ready; container kserve-container: CrashLoopBackOff, exit status 1"]
    assert facts["logs"][f"{B}-x/kserve-container"][-1] == "ZeroDivisionError: by zero"
    assert facts["events"] == [f"Pod {B}-x: BackOff: Back-off restarting failed container"]


@pytest.mark.parametrize(("seconds", "status"), [(10, 1), (600, 2)])
def test_what_kserve_has_not_seen_to_be_ready_is_starting_for_a_minute(seconds: float, status: int) -> None:
    release = Release("a")
    ready = {"type": "Ready", "status": "False", "reason": "IngressNotReady", "message": "no ingress"}
    release.objects[f"{SERVICES}/pump-a"]["status"] = {"conditions": [ready]}
    release.pod(A)["status"]["conditions"][0]["lastTransitionTime"] = ago(seconds)
    told = diagnosed(release)

    assert told.status == status
    assert [one.cause for one in told.findings] == ["starting"] * (status == 1)
    assert "IngressNotReady no ingress" in (told.unexplained or [told.findings[0].found])[0]


def test_what_may_not_be_read_is_said_and_nothing_is_guessed() -> None:
    release = Release("a")
    release.forbidden = {"events", "gateways", "deployments"}
    partly = diagnosed(release)
    release.forbidden = {"inferenceservices"}
    nothing = diagnosed(release)

    assert (partly.status, [*partly.seen.unread]) == (0, ["deployments", "gateways", "events"])
    assert (nothing.status, nothing.unexplained) == (2, ["not allowed to read the InferenceServices in models"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("get https://user:pa55@store/x", "get https://…@store/x"),
        ("AWS_SECRET_ACCESS_KEY=abc/def end", "AWS_SECRET_ACCESS_KEY=… end"),
        ('{"password": "pa55", "next": 1}', '{"password": "…", "next": 1}'),
        ("url?X-Amz-Signature=00ff&x=1", "url?X-Amz-Signature=…&x=1"),
        ('secret "s3-credentials" not found', 'secret "s3-credentials" not found'),
    ],
)
def test_passwords_in_logs_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_no_secret_is_asked_for() -> None:
    release = Release("a", "b")
    release.fetch(B, "RuntimeError: S3 authentication failed. AWS_SECRET_ACCESS_KEY=pa55")
    told = diagnosed(release)

    assert [path for path in release.asked if "/secrets" in path] == []
    assert "pa55" not in json.dumps(told.facts())


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Release]:
    """A release in an API at a real port, which the kubeconfig names."""
    release = Release("a", "b")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, text = 200, release.read(self.path)
            except Absent:
                status, text = 404, "{}"
            except Forbidden:
                status, text = 403, "{}"
            self.send_response(status)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        at = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
        users = [{"name": "test", "user": {}}]
        config = {"clusters": [at], "contexts": [context], "users": users, "current-context": "test"}
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield release
        server.shutdown()
        thread.join()


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "pump", "-n", "models", *arguments])


def test_the_command_shows_slots_causes_and_remedies(served: Release) -> None:
    served.end(B, OTHER_DIGEST)
    shown, as_json = asked(), asked("--json")
    facts = json.loads(as_json.stdout)

    assert shown.exit_code == as_json.exit_code == 1
    assert "b     pump-b-predictor    0 of 1  release-b  canary, 0 %" in shown.stdout
    assert f"wrong digest: {B}\n  found   bundle.json: expected digest {DIGEST}" in shown.stdout
    assert shown.stdout.endswith("pump: 1 cause found\n")
    assert (facts["healthy"], [one["cause"] for one in facts["causes"]]) == (False, ["wrong-digest"])


def test_the_command_says_that_all_is_well(served: Release) -> None:
    shown = asked()

    assert shown.exit_code == 0
    assert shown.stdout.endswith("pump: healthy\n")


def test_without_a_cluster_the_status_is_neither(served: Release, tmp_path: Path) -> None:
    config = yaml.safe_load((tmp_path / "config").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    shown = asked()

    assert shown.exit_code == 3
    assert "no answer from http://127.0.0.1:9" in shown.output
