"""Knative Serving with Kourier: the Knative mode of KServe, and its gateway on 127.0.0.1."""

from pathlib import Path

from tests.cluster.testbed import build
from tests.cluster.testbed.addons import containers, node_port, small
from tests.cluster.testbed.api import Object, load, named
from tests.cluster.testbed.catalog import ENVOY, KNATIVE, KOURIER
from tests.cluster.testbed.places import KNATIVE_PORT

NAMESPACE = "knative-serving"
GATEWAY_NAMESPACE = "kourier-system"
DOMAIN = "example.com"

# Knative refuses these fields of a pod unless they are switched on. These are needed, for this:
FEATURES = {
    "kubernetes.podspec-persistent-volume-claim": "enabled",  # a bundle on a volume
    "kubernetes.podspec-init-containers": "enabled",  # fetch or check a bundle before serving
    "kubernetes.podspec-affinity": "enabled",  # spread over nodes, choose nodes
    "kubernetes.podspec-nodeselector": "enabled",
    "kubernetes.podspec-tolerations": "enabled",
    "kubernetes.podspec-topologyspreadconstraints": "enabled",
    "kubernetes.podspec-securitycontext": "enabled",  # Pod Security `restricted` asks for runAsNonRoot and seccomp
    "kubernetes.podspec-priorityclassname": "enabled",
    "kubernetes.podspec-fieldref": "enabled",  # the pod's own name in its environment
    "multi-container-probing": "enabled",  # probes on predictor and transformer in one pod
}

CONFIG = {
    "config-features": FEATURES,
    "config-deployment": {
        "queue-sidecar-image": KNATIVE["queue"].tag,
        "registries-skipping-tag-resolving": "dev.local",  # there is no registry to ask for a digest
        "queue-sidecar-cpu-request": "10m",
    },
    "config-network": {"ingress-class": "kourier.ingress.networking.knative.dev"},
    "config-domain": {DOMAIN: ""},
    "config-autoscaler": {"scale-to-zero-grace-period": "10s"},
}


def definitions() -> list[Object]:
    """Knative's kinds."""
    networking = build.KNATIVE.taken("knative.dev/networking", "config")
    files = [networking / f"{name}.yaml" for name in ("ingress", "serverlessservice", "domain-claim", "certificate")]
    files.append(build.KNATIVE.taken("knative.dev/caching", "config") / "image.yaml")
    files += sorted((core() / "300-resources").glob("*.yaml"))
    return load(*files)


def objects() -> list[Object]:
    """Knative Serving and Kourier, in the order of their file names."""
    files = [core() / "100-namespace.yaml", *sorted((core() / "200-roles").glob("*.yaml"))]
    files += [core() / "200-serviceaccount.yaml", *sorted((core() / "configmaps").glob("*.yaml"))]
    files += [build.KNATIVE.taken("knative.dev/networking", "config") / "config-network.yaml"]
    files += [core() / "deployments" / f"{name}.yaml" for name in ("activator", "autoscaler", "controller", "webhook")]
    files += sorted((core() / "webhooks").glob("*.yaml"))
    files += sorted(build.KOURIER.taken("knative.dev/net-kourier", "config").glob("*.yaml"))
    found = small(item for item in load(*files) if item["kind"] not in SINGLE_NODE)
    for item in found:
        if item["kind"] == "Deployment":
            containers(item)[0]["image"] = image(containers(item)[0]["image"])
        if item["kind"] == "ConfigMap" and "_example" in item.get("data", {}):
            settle(item)
    gateway = containers(named(found, "Deployment", "3scale-kourier-gateway"))[0]
    gateway["readinessProbe"]["initialDelaySeconds"] = 1
    return [
        *found,
        node_port("knative-gateway", GATEWAY_NAMESPACE, {"app": "3scale-kourier-gateway"}, 8080, KNATIVE_PORT),
    ]


SINGLE_NODE = ("HorizontalPodAutoscaler", "PodDisruptionBudget")  # useless with a single node


def core() -> Path:
    """The folder of Knative Serving's own manifests."""
    return build.KNATIVE.taken("knative.dev/serving", "config/core")


def image(reference: str) -> str:
    """Our image in place of one in Knative's manifests: `ko://…/cmd/NAME`, or Envoy's."""
    if "envoy" in reference:
        return ENVOY.tag
    program = reference.rpartition("/")[2]
    return KOURIER.tag if program == "kourier" else KNATIVE[program].tag


def settle(config_map: Object) -> None:
    """Set the data of a ConfigMap that ships only with an example; the webhook checks the example's checksum."""
    config_map["metadata"].get("annotations", {}).pop("knative.dev/example-checksum", None)
    config_map["data"] = dict(CONFIG.get(config_map["metadata"]["name"], {}))
