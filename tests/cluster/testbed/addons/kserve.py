"""KServe: InferenceServices in Standard and Knative mode in the same cluster."""

import base64
from pathlib import Path

from tests.cluster.testbed import build
from tests.cluster.testbed import certificates as pki
from tests.cluster.testbed.addons import chart, namespace, small
from tests.cluster.testbed.api import Object, named
from tests.cluster.testbed.catalog import KSERVE, STORAGE_INITIALIZER

NAMESPACE = "kserve"
MODULE = "github.com/kserve/kserve"
WEBHOOK_SECRET = "kserve-webhook-server-cert"
WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
# Objects that the manager's webhooks judge, which are applied when the manager answers.
JUDGED = (*WEBHOOKS, "ClusterStorageContainer")

VALUES = {
    "kserve": {
        "controller": {
            "image": KSERVE.tag.split(":")[0],
            "tag": KSERVE.tag.split(":")[1],
            "imagePullPolicy": "IfNotPresent",
            "gateway": {
                "disableIstioVirtualHost": True,
                "ingressGateway": {"enableGatewayApi": True, "kserveGateway": "kserve/kserve-ingress-gateway"},
            },
        },
        "storage": {"image": STORAGE_INITIALIZER.tag.split(":")[0], "tag": STORAGE_INITIALIZER.tag.split(":")[1]},
    }
}


def definitions() -> list[Object]:
    """KServe's kinds."""
    return chart(build.KSERVE.taken(MODULE, "charts/kserve-crd"), "kserve-crd", NAMESPACE, {})


def rendered() -> list[Object]:
    """The chart, without the parts for cert-manager and kube-rbac-proxy; the certificate is made here."""
    folder = build.KSERVE.taken(MODULE, "charts/kserve-resources")
    found = chart(folder, "kserve", NAMESPACE, VALUES)
    return [item for item in found if not item["apiVersion"].startswith("cert-manager.io")]


def objects() -> list[Object]:
    """The manager and everything that it needs to start."""
    found = small(item for item in rendered() if item["kind"] not in JUDGED)
    pod = named(found, "Deployment", "kserve-controller-manager")["spec"]["template"]["spec"]
    pod["containers"] = [item for item in pod["containers"] if item["name"] == "manager"]
    manager = pod["containers"][0]
    manager["command"] = ["/program"]
    manager["readinessProbe"]["initialDelaySeconds"] = 1
    manager["args"] = [
        item for item in manager["args"] if item != "--leader-elect"
    ]  # one replica, so no lease to wait for
    return [namespace(NAMESPACE), webhook_secret(), *found]


def judged() -> list[Object]:
    """The webhooks, trusting our certificate, and the storage initializer."""
    found = [item for item in rendered() if item["kind"] in JUDGED]
    for item in (item for item in found if item["kind"] in WEBHOOKS):
        for webhook in item["webhooks"]:
            webhook["clientConfig"]["caBundle"] = encoded(pki.CA.crt)
    return found


def webhook_secret() -> Object:
    """The serving certificate of the manager's webhooks."""
    pair = pki.Pair("kserve-webhook")
    if not pair.crt.exists():
        host = f"DNS:kserve-webhook-server-service.{NAMESPACE}.svc"
        pki.sign(pair, pki.CA, "/CN=kserve-webhook", (host,))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": WEBHOOK_SECRET, "namespace": NAMESPACE},
        "data": {"tls.crt": encoded(pair.crt), "tls.key": encoded(pair.key)},
    }


def encoded(file: Path) -> str:
    """A file's content in base64, as Secrets hold it."""
    return base64.b64encode(file.read_bytes()).decode()
