"""Releases that are broken on purpose, each in its own way, in a namespace of their own."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from tabserve import bundle as bundles
from tabserve.rollout.checks import Rules
from tabserve.rollout.state import Slot, State
from tests.cluster import chart
from tests.cluster.chart import Values, merged
from tests.cluster.testbed import api
from tests.cluster.testbed.places import BUCKET, S3
from tests.unit.bundles import resealed, saved
from tests.unit.test_bundle_signature import pair

NAMESPACE, CRAMPED = "broken", "cramped"
MODEL = "m"
ALONE: Values = {
    "transformer": {"placement": "none"},
    "networkPolicy": {"extraEgress": [{"ports": [{"port": 7070}]}]},  # where the S3 server's pods listen
}
BOTH: Values = {"transformer": {"placement": "separate"}}
FOLDER = "doctor"


class Breakage(NamedTuple):
    """A release whose values cause something. after: what else is done to it, given its name."""

    cause: str
    values: Values
    namespace: str = NAMESPACE
    after: Callable[[str], None] | None = None


def put(folder: Path, name: str) -> Values:
    """Put a bundle into the S3 server; returns its place and digest."""
    shutil.copytree(folder, S3 / BUCKET / FOLDER / name, dirs_exist_ok=True)
    return at(f"s3://{BUCKET}/{FOLDER}/{name}", bundles.load(folder).digest)


def at(place: str, digest: str) -> Values:
    """Values of a bundle in slot a."""
    return {"releases": {"a": {"bundle": {"storageUri": place, "digest": digest}}}}


def remove_bundles() -> None:
    """Remove the bundles from the S3 server."""
    shutil.rmtree(S3 / BUCKET / FOLDER, ignore_errors=True)


def unrepeated(folder: Path, target: Path) -> Path:
    """A copy of a bundle whose reference has other answers, and a digest that fits."""
    shutil.copytree(folder, target)
    reference = dict(np.load(target / "reference.npz"))
    answers = [name for name in reference if name.endswith("predict_proba")]
    for name in answers:
        reference[name] = reference[name][:, ::-1]
    np.savez_compressed(target / "reference.npz", **reference)
    resealed(target)
    return target


def objects(public: str) -> list[api.Object]:
    """What the releases need besides: namespaces, who may read the store, a Gateway, a claim, a quota, a public key."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name in (NAMESPACE, CRAMPED)
    ]
    gateway = {"gatewayClassName": "nobody", "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]}
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    return [
        *namespaces,
        *reader("reader", "testbed-secret"),
        *reader("stranger", "another-secret"),
        made("gateway.networking.k8s.io/v1", "Gateway", "unrun", spec=gateway),
        made("v1", "PersistentVolumeClaim", "unbound", spec=claim),
        made("v1", "ConfigMap", "signers", data={"own.pub": public}),
        made("v1", "ConfigMap", "halted-rollout", data={"state.json": taken_back()}),
        made("v1", "ResourceQuota", "none", CRAMPED, spec={"hard": {"pods": "0"}}),
    ]


def made(version: str, kind: str, name: str, namespace: str = NAMESPACE, **content: Any) -> api.Object:
    """An object."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **content}


def reader(name: str, secret: str) -> list[api.Object]:
    """A ServiceAccount with credentials for the S3 server, as docs/kubernetes.md makes it."""
    annotations = {
        "serving.kserve.io/s3-endpoint": "s3.storage",
        "serving.kserve.io/s3-usehttps": "0",
        "serving.kserve.io/s3-region": "us-east-1",
    }
    keys = {"AWS_ACCESS_KEY_ID": "testbed", "AWS_SECRET_ACCESS_KEY": secret}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
    credentials = made("v1", "Secret", f"{name}-keys", data=data)
    credentials["metadata"]["annotations"] = annotations
    return [credentials, made("v1", "ServiceAccount", name, secrets=[{"name": f"{name}-keys"}])]


def taken_back() -> str:
    """The state of a rollout whose canary was taken back."""
    slots = Slot("a", "stable"), Slot("b", "canary")
    told = "Back: failed requests: 17 of 400 at the canary, 8 of 1608 at stable."
    return State("halted", NAMESPACE, *slots, Rules(), [5], "2026-11-30T12:00:00Z", phase="back", told=told).text()


def unselected(name: str) -> None:
    """Let the Service of a release's predictors select no pod."""
    change = {"spec": {"selector": {"component": "nobody"}}}
    chart.connect().merge("v1", "Service", f"{name}-a-predictor-pods", NAMESPACE, change)


def breakages(bundle: Path, folder: Path) -> dict[str, Breakage]:
    """The broken releases by name. folder: for the bundles that are made."""
    own, other = (pair(folder, name, ec.SECP256R1()) for name in ("own", "other"))
    good = put(bundle, "good")
    foreign = Path(shutil.copytree(bundle, folder / "foreign"))
    bundles.sign(foreign, other.private)
    (folder / "light").mkdir()
    light = saved(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1), folder / "light").path
    trust: Values = {"trust": {"publicKey": {"name": "signers", "key": "own.pub"}}}
    chart.connect().apply(*objects(own.public.read_text()))
    nowhere = {"volume": {"name": "host", "hostPath": {"path": "/"}}, "mount": {"name": "host", "mountPath": "/host"}}
    volumes = {"extraVolumes": [nowhere["volume"]], "extraVolumeMounts": [nowhere["mount"]]}
    digest = bundles.load(bundle).digest
    return {
        "digest": Breakage("wrong-digest", merged(good, at(f"s3://{BUCKET}/{FOLDER}/good", f"sha256:{'0' * 64}"))),
        "nowhere": Breakage("bundle-not-found", at(f"s3://{BUCKET}/{FOLDER}/nowhere", digest)),
        "stranger": Breakage("store-credentials", merged(good, account("stranger"))),
        "anonymous": Breakage("service-account", merged(good, account("nobody"))),
        "image": Breakage("image", merged(good, predictor(image={"tag": "nowhere"}))),
        "quota": Breakage("quota", merged(good, account("default")), CRAMPED),
        "rooted": Breakage("pod-security", merged(good, predictor(**volumes))),
        "gateless": Breakage("no-gateway", merged(good, {"gateway": {"parentRefs": [{"name": "nowhere"}]}})),
        "classless": Breakage("gateway-class", merged(good, {"gateway": {"parentRefs": [{"name": "unrun"}]}})),
        "unsigned": Breakage("unsigned", merged(good, trust)),
        "foreign": Breakage("wrong-signature", merged(put(foreign, "foreign"), trust)),
        "untrusted": Breakage("missing-object", merged(good, {"trust": {"publicKey": {"name": "nowhere"}}})),
        "unproven": Breakage("not-proven", put(unrepeated(bundle, folder / "unproven"), "unproven")),
        "light": Breakage("missing-library", put(light, "light")),
        "tight": Breakage("out-of-memory", merged(good, limited("memory", "40Mi"))),
        "huge": Breakage("no-room", merged(good, limited("cpu", "64"))),
        "homeless": Breakage("no-node", merged(good, predictor(nodeSelector={"nowhere": "x"}))),
        "claimless": Breakage("claim-missing", at("pvc://nowhere/m", digest)),
        "unbound": Breakage("claim-pending", at("pvc://unbound/m", digest)),
        "halted": Breakage("rollout-back", good),
        "lonely": Breakage("predictor-unreachable", merged(good, BOTH), after=unselected),
    }  # fmt: skip


def predictor(**content: Any) -> Values:
    """Values of the predictor."""
    return {"predictor": content}


def limited(resource: str, amount: str) -> Values:
    """Values of the predictor, whose request and limit of a resource are this much."""
    return predictor(resources={kind: {resource: amount} for kind in ("requests", "limits")})


def account(name: str) -> Values:
    """Values that name an existing ServiceAccount."""
    return {"serviceAccount": {"create": False, "name": name}}


def given(breakage: Breakage) -> Values:
    """All values of a broken release: mostly a predictor alone, which may read the store."""
    return merged(chart.values(MODEL, **merged(ALONE, account("reader"))), breakage.values)
