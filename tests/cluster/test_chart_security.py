"""Who may speak in the cluster: TLS to the pods, tokens and limits at the gateway, and whose bundles are served."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.certificates import Authority, Pair
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.test_chart_canary import told
from tests.cluster.testbed import api
from tests.cluster.testbed.places import PROJECT, STANDARD_PORT
from tests.docs.blocks import files
from tests.unit.test_bundle_signature import Keys, pair

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
MODEL = "breast-cancer"
TRUST: chart.Values = {
    "trust": {"publicKey": {"name": "signers", "key": "own.pub"}},
    "transformer": {"placement": "none"},
}
GAVE_UP_SECONDS = 720
"""When a Deployment has given up (after 600 s, as KServe sets it), and KServe has looked at its pods again."""
GATEWAY = f"127.0.0.1:{STANDARD_PORT}"
PAGE = files((PROJECT / "docs" / "security.md").read_text())
NAMES = (f"secured-a-transformer.{NAMESPACE}", "secured-a-predictor-pods")


def target(name: str, bundle: Path) -> Target:
    """The model of a Helm release behind the gateway."""
    return Target(GATEWAY, f"{name}-{NAMESPACE}.example.com", MODEL, expected.record(bundles.load(bundle), 0))


@contextmanager
def existing(*objects: api.Object) -> Generator[None]:
    """Objects that are deleted when the block is left."""
    connect().apply(*objects)
    try:
        yield
    finally:
        for item in objects:
            connect().delete(item["apiVersion"], item["kind"], item["metadata"]["name"], NAMESPACE)


def held(kind: str, name: str, contents: Mapping[str, str]) -> api.Object:
    """A Secret or a ConfigMap."""
    values = {"stringData" if kind == "Secret" else "data": dict(contents)}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **values}


def tls_secret(authority: Authority, issued: Pair) -> api.Object:
    """A Secret as cert-manager writes it."""
    parts = {"tls.crt": issued.cert, "tls.key": issued.key, "ca.crt": authority.file}
    return held("Secret", "secured-tls", {name: path.read_text() for name, path in parts.items()})


def pod_address(component: str) -> str:
    """The address of the only pod of a component."""
    labels = {"serving.kserve.io/inferenceservice": "secured-a", "component": component}
    (pod,) = chart.staying(**labels)
    address: str = pod["status"]["podIP"]
    return address


def spoken(component: str, context: ssl.SSLContext | None) -> bytes:
    """The first line that a pod answers to a request for its readiness; empty if it ends the connection."""
    request = b"GET /v2/health/ready HTTP/1.1\r\nhost: pod\r\n\r\n"
    name = {"transformer": NAMES[0], "predictor": NAMES[1]}[component]
    try:
        with ExitStack() as opened:
            speaking = opened.enter_context(socket.create_connection((pod_address(component), 8080), timeout=20))
            if context is not None:
                speaking = opened.enter_context(context.wrap_socket(speaking, server_hostname=name))
            speaking.sendall(request)
            return speaking.recv(64 * 1024).partition(b"\r\n")[0]
    except (ssl.SSLError, ConnectionError):
        return b""


def client(authority: Authority, own: Pair | None = None) -> ssl.SSLContext:
    """A client's TLS."""
    made = ssl.create_default_context(cafile=authority.file)
    if own is not None:
        made.load_cert_chain(own.cert, own.key)
    return made


def serial(authority: Authority) -> str:
    """The serial number of the certificate that the transformer's pod shows."""
    with (
        socket.create_connection((pod_address("transformer"), 8080), timeout=20) as plain,
        client(authority).wrap_socket(plain, server_hostname=NAMES[0]) as speaking,
    ):
        shown = speaking.getpeercert() or {}
        return str(shown["serialNumber"])


def test_pods_speak_tls_alone_and_a_new_certificate_loses_no_request(bundle: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    secret = tls_secret(authority, authority.issue("first", names=NAMES))
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)}, tls={"secretName": "secured-tls"})
    with existing(secret), released("secured") as release:
        release.apply(given)
        chart.wait_ready("secured-a")
        model = target("secured", bundle)
        api.wait("the gateway's TLS", lambda: "" if model.once().good else model.once().status, 60, chart.explain)
        own = authority.issue("client", names=("client",))
        answers = {
            (component, kind): spoken(component, context)
            for component in ("transformer", "predictor")
            for kind, context in {
                "plain": None,
                "tls": client(authority),
                "mutual": client(authority, own),
            }.items()
        }
        before = serial(authority)
        with constant(model, rest=2, grpc=1) as seen:
            connect().apply(tls_secret(authority, authority.issue("second", names=NAMES)))
            api.wait("the new certificate", lambda: "" if serial(authority) != before else "not", 180, chart.explain)
            rotated, count = time.monotonic(), len(seen.answers)
            api.wait("more answers", lambda: "" if len(seen.answers) > count + 200 else "few", 60, chart.explain)
        tested = release.test()

    ok = b"HTTP/1.1 200 OK"
    assert answers == {
        ("transformer", "plain"): b"",
        ("transformer", "tls"): ok,
        ("transformer", "mutual"): ok,
        ("predictor", "plain"): b"",
        ("predictor", "tls"): b"",
        ("predictor", "mutual"): ok,
    }
    assert seen.failures() == []
    assert len(seen.since(rotated)) > 150
    assert {answer.protocol for answer in seen.answers} == {"REST", "gRPC"}
    assert "Phase:          Succeeded" in tested


def encoded(data: bytes) -> str:
    """Base64 as tokens and key sets have it (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_set(key: rsa.RSAPrivateKey) -> str:
    """A set with a key's public part (RFC 7517)."""
    numbers = key.public_key().public_numbers()
    parts = {"n": encoded(numbers.n.to_bytes(256, "big")), "e": encoded(numbers.e.to_bytes(3, "big"))}
    return json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one", **parts}]})


def token(key: rsa.RSAPrivateKey, **claims: Any) -> str:
    """A token of the issuer for the page's audience (RFC 7519)."""
    now = int(time.time())
    said = {"iss": "https://issuer.example.com", "aud": "fraud", "iat": now, "exp": now + 600, **claims}
    head = {"alg": "RS256", "kid": "one"}
    text = ".".join(encoded(json.dumps(each).encode()) for each in (head, said))
    return f"{text}.{encoded(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.fixture(scope="module")
def open_model(bundle: Path) -> Generator[Target]:
    """A model behind the gateway, of the page's Helm release `fraud`."""
    with released("fraud") as release:
        release.apply(chart.values(MODEL, releases={"a": chart.on_volume(bundle)}))
        chart.wait_ready("fraud-a")
        found = target("fraud", bundle)
        api.wait("the route", lambda: "" if found.once().good else found.once().status, 60, chart.explain)
        yield found


def status(model: Target, bearer: str = "") -> str:
    """How a request ends, with a token if there is one."""
    return replace(model, headers={"Authorization": f"Bearer {bearer}"} if bearer else {}).once().status


def test_only_requests_with_a_token_of_the_issuer_are_answered(open_model: Target) -> None:
    key, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    with existing(held("ConfigMap", "fraud-jwks", {"jwks": key_set(key)}), yaml.safe_load(PAGE["jwt.yaml"])):
        api.wait("the policy", lambda: "" if status(open_model) == "401" else "not applied", 60, chart.explain)
        found = {
            "without": status(open_model),
            "with": status(open_model, token(key)),
            "of another key": status(open_model, token(other)),
            "of yesterday": status(open_model, token(key, exp=int(time.time()) - 86_400)),
            "for another": status(open_model, token(key, aud="other")),
        }

    assert found["with"] == "200"
    assert found == {
        "without": "401",
        "with": "200",
        "of another key": "401",
        "of yesterday": "401",
        "for another": "403",
    }


def test_the_gateway_answers_429_over_the_limit(open_model: Target) -> None:
    limit = PAGE["limit.yaml"].replace("requests: 100, unit: Second", "requests: 5, unit: Hour")
    with existing(yaml.safe_load(limit)):
        api.wait("the limit", lambda: "" if status(open_model) == "429" else "none", 60, chart.explain)
        limited = status(open_model)
    api.wait("no limit", lambda: "" if status(open_model) == "200" else "still", 60, chart.explain)

    assert limited == "429"


def test_a_signed_bundle_serves_and_others_say_why_not(bundle: Path, tmp_path: Path) -> None:
    keys, other = (pair(tmp_path, name, ec.SECP256R1()) for name in ("own", "other"))
    signed, unsigned, foreign = (
        Path(shutil.copytree(bundle, tmp_path / f"signed{number}" / "model")) for number in range(3)
    )
    (unsigned / "bundle.json").write_text((unsigned / "bundle.json").read_text() + " ")  # another place on the volume
    (foreign / "bundle.json").write_text((foreign / "bundle.json").read_text() + "  ")
    bundles.sign(signed, keys.private)
    bundles.sign(foreign, other.private)
    with existing(signers(keys)):
        with released("signed") as release:
            release.apply(merged(chart.values(MODEL, releases={"a": chart.on_volume(signed)}), TRUST))
            chart.wait_ready("signed-a")
        reasons = {name: refusal(name, folder) for name, folder in (("none", unsigned), ("foreign", foreign))}

    for said in reasons["none"]:
        assert "bundle.sig: missing, so the bundle is not signed" in said
    for said in reasons["foreign"]:
        assert "bundle.sig: was not made by a key in /mnt/trust/own.pub" in said


def signers(keys: Keys) -> api.Object:
    """The keys whose bundles are served."""
    return held("ConfigMap", "signers", {"own.pub": keys.public.read_text()})


def refusal(name: str, folder: Path) -> tuple[str, str]:
    """Why an InferenceService is not Ready, from its pod's status and log."""
    with released(name) as release:
        release.apply(merged(chart.values(MODEL, releases={"a": chart.on_volume(folder)}), TRUST))
        api.wait("the reason", lambda: "" if "bundle.sig" in told(f"{name}-a")[0] else "none", 120, chart.explain)
        service = connect().get(chart.SERVING, "InferenceService", f"{name}-a", NAMESPACE)
        assert api.condition(service, "Ready") != ""
        return told(f"{name}-a")


def test_the_inferenceservice_says_why_once_its_deployment_has_given_up(bundle: Path, tmp_path: Path) -> None:
    def failure() -> dict[str, Any]:
        service = connect().get(chart.SERVING, "InferenceService", "late-a", NAMESPACE)
        found: dict[str, Any] = service.get("status", {}).get("modelStatus", {}).get("lastFailureInfo", {})
        return found

    keys = pair(tmp_path, "own", ec.SECP256R1())
    with existing(signers(keys)), released("late") as release:
        release.apply(merged(chart.values(MODEL, releases={"a": chart.on_volume(bundle)}), TRUST))
        api.wait("the reason", lambda: "" if failure() else "none", GAVE_UP_SECONDS, chart.explain)
        found = failure()

    assert found["reason"] == "ModelLoadFailed"
    assert "bundle.sig: missing, so the bundle is not signed" in found["message"]
