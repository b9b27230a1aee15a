"""The parts of the testbed, from the machine up to KServe: one row each, in the order of starting."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import grpc

from tests.cluster.testbed import build, catalog, certificates, control_plane, machine, node
from tests.cluster.testbed.addons import dns, envoy_gateway, knative, kserve, metrics, prometheus, storage
from tests.cluster.testbed.api import Cluster, Object, condition
from tests.cluster.testbed.images import Built, Image, PythonBase
from tests.cluster.testbed.places import CONTAINERD_SOCKET, DATA, KUBECONFIG, LOGS, NODE
from tests.cluster.testbed.process import CommandFailed, Daemon, running, tail


@dataclass(frozen=True)
class Row:
    """One part of the testbed."""

    name: str
    there: Callable[[], bool]  # whether it was started, or made
    start: Callable[[], object]
    lacking: Callable[[], str] = lambda: ""  # what is missing until it is ready
    seconds: float = 120  # to become ready
    explain: Callable[[], str] = lambda: ""
    blocks: bool = True  # whether later rows need it to be ready
    marker: Path | None = None  # a file that is made once it is ready


@cache
def cluster() -> Cluster:
    """The testbed's own API."""
    return Cluster(KUBECONFIG)


def program(made: build.Build | build.Wheels | build.DebianPackage) -> Row:
    """A row for a component's programs in the cache."""
    return Row(f"program {made.name}", made.folder.exists, made.make)


def image(made: Image | Built | PythonBase) -> Row:
    """A row for an image's archive in the cache."""
    return Row(f"image {made.name}", lambda: made.archive.exists(), partial(catalog.make, made))


def loaded(made: Image | Built | PythonBase) -> Row:
    """A row for an image in the node's containerd."""
    return Row(f"load {made.name}", lambda: catalog.is_loaded(made), partial(catalog.load, made))


def daemon(name: str, make: Callable[[], Daemon], lacking: Callable[[], str] = lambda: "") -> Row:
    """A row for a program that runs on the machine itself."""

    def log() -> str:
        return tail(LOGS / f"{name}.log")

    def alive() -> str:
        if running(name) is None:
            raise CommandFailed(f"it ended:\n{log()}")
        return lacking()

    return Row(name, lambda: running(name) is not None, lambda: make().start(), alive, explain=log)


def addon(name: str, objects: Callable[[], list[Object]], *namespaces: str, blocks: bool = True) -> Row:
    """A row for objects in the cluster, ready when all Deployments in these namespaces are."""
    applied = DATA / "applied" / name

    def apply() -> None:
        cluster().apply(*objects())

    def lacking() -> str:
        return "; ".join(filter(None, map(cluster().unavailable, namespaces)))

    def explain() -> str:
        return "\n".join(map(cluster().explain, namespaces))

    return Row(name, applied.exists, apply, lacking, explain=explain, blocks=blocks, marker=applied)


def kinds(name: str, objects: Callable[[], list[Object]]) -> Row:
    """A row for definitions of kinds, ready when the API server serves them; a controller that starts sooner ends."""
    rendered = cache(objects)
    row = addon(name, rendered)

    def lacking() -> str:
        return ", ".join(filter(None, map(cluster().unserved, rendered())))

    return replace(row, lacking=lacking)


def api_lacking() -> str:
    """What the API server says about itself if it is not ready."""
    answer = cluster().request("GET", "/readyz")
    return "" if answer == "ok" else answer


def runtime_lacking() -> str:
    """Why containerd does not answer yet; without it a kubelet would end."""
    with grpc.insecure_channel(f"unix://{CONTAINERD_SOCKET}") as channel:
        try:
            channel.unary_unary("/runtime.v1.RuntimeService/Version")(b"", timeout=5)
        except grpc.RpcError as error:
            return str(error.details())
    return ""


def node_lacking() -> str:
    """Why the node is not Ready."""
    return condition(cluster().get("v1", "Node", NODE), "Ready")


def network_policy() -> list[Row]:
    """What enforces NetworkPolicies."""
    return [
        Row("Debian package ipset", lambda: shutil.which("ipset") is not None, lambda: machine.install("ipset")),
        program(build.KUBE_ROUTER),
        daemon("kube-router", node.kube_router, node.firewall_lacking),
    ]


ADDED = {"network-policy": network_policy}
"""Parts that are brought up only if they are named."""


def rows(*added: str) -> list[Row]:
    """All rows of the testbed, and those of the parts that are added."""
    return [
        Row("Debian packages", lambda: not machine.missing_packages(), machine.install),
        *map(program, build.BUILDS),
        *map(image, catalog.TESTBED),
        # The node and its control plane
        Row("bridge, cgroups, sysctls", node.is_prepared, node.prepare),
        Row("certificates", KUBECONFIG.exists, certificates.make),
        daemon("etcd", control_plane.etcd),
        daemon("kube-apiserver", control_plane.api_server, api_lacking),
        daemon("kube-controller-manager", control_plane.controller_manager),
        daemon("kube-scheduler", control_plane.scheduler),
        daemon("containerd", node.containerd, runtime_lacking),
        *map(loaded, catalog.TESTBED),
        daemon("kubelet", node.kubelet, node_lacking),
        daemon("kube-proxy", node.kube_proxy),
        # What runs in the cluster
        addon("CoreDNS", dns.objects, dns.NAMESPACE),
        addon("metrics-server", metrics.objects, metrics.NAMESPACE, blocks=False),
        kinds("Gateway API kinds", envoy_gateway.definitions),
        addon("Envoy Gateway", envoy_gateway.objects, envoy_gateway.NAMESPACE, blocks=False),
        kinds("Knative kinds", knative.definitions),
        addon("Knative, Kourier", knative.objects, knative.NAMESPACE, knative.GATEWAY_NAMESPACE, blocks=False),
        kinds("KServe kinds", kserve.definitions),
        addon("KServe", kserve.objects, kserve.NAMESPACE),
        addon("KServe webhooks", kserve.judged),
        addon("S3 server and volume", storage.objects, storage.NAMESPACE, blocks=False),
        addon("Prometheus", prometheus.objects, prometheus.NAMESPACE, blocks=False),
        *(row for name in added for row in ADDED[name]()),
    ]
