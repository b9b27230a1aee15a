"""Examine a Kubernetes cluster: which modes of the chart it can run, what is missing, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from tabserve.doctor.api import Absent, Forbidden, Get, Json

OLDEST_KUBERNETES = (1, 32)
OLDEST_KSERVE = (0, 20)
KSERVE = "/apis/serving.kserve.io"
# Flags of Knative's config-features without which the chart renders less, and what each is for.
FEATURES = {
    "multi-container-probing": "probes of the predictor as well as the transformer",
    "kubernetes.podspec-securitycontext": "a storage initializer where Pod Security is `restricted`",
    "kubernetes.podspec-topologyspreadconstraints": "spreading pods over nodes",
}


class Requirement(NamedTuple):
    """One thing that was looked at. needed: the modes that need it; remedy: what to do if it is not ok."""

    what: str
    needed: str
    state: Literal["ok", "missing", "unknown"]
    detail: str
    remedy: str = ""


def examine(get: Get) -> list[Requirement]:
    """Look, one by one, at everything the chart needs or can use."""
    checks = {
        "Kubernetes": kubernetes,
        "KServe": kserve,
        "KServe's version": kserve_version,
        "Gateway API": gateway,
        "Knative": knative,
        "Knative's flags": features,
        "Metrics API": metrics,
        "Storage initializer": storage,
        "PodMonitor": monitors,
    }
    return [look(what, check, get) for what, check in checks.items()]


def look(what: str, check: Callable[[Get], Requirement], get: Get) -> Requirement:
    """A check's finding, `unknown` if looking is not allowed."""
    try:
        return check(get)
    except Forbidden as error:
        return Requirement(what, "", "unknown", f"not allowed to read {error}", "Ask someone who is, or try it.")


def modes(findings: list[Requirement]) -> dict[str, bool]:
    """Whether each mode can run, because nothing that it needs is missing."""
    lacking = {mode for finding in findings if finding.state == "missing" for mode in finding.needed.split(", ")}
    return {mode: mode not in lacking for mode in ("Standard", "Knative")}


def kubernetes(get: Get) -> Requirement:
    """Check the API server's version."""
    version = get("/version")
    number = (int(version["major"]), int("".join(filter(str.isdigit, version["minor"]))))
    state: Literal["ok", "missing"] = "ok" if number >= OLDEST_KUBERNETES else "missing"
    return Requirement("Kubernetes", "Standard, Knative", state, version["gitVersion"], "Upgrade to 1.32 or later.")


def kserve(get: Get) -> Requirement:
    """Check that KServe's kinds are installed."""
    remedy = "Install KServe 0.20 or later: its charts kserve-crd and kserve-resources."
    kinds = ("inferenceservices", "servingruntimes")
    there = served(get, f"{KSERVE}/v1beta1") | served(get, f"{KSERVE}/v1alpha1")
    missing = [kind for kind in kinds if kind not in there]
    state: Literal["ok", "missing"] = "missing" if missing else "ok"
    return Requirement(
        "KServe", "Standard, Knative", state, f"no {', '.join(missing)}" if missing else "installed", remedy
    )


def kserve_version(get: Get) -> Requirement:
    """Check the version of KServe's controller, from the tag of its image."""
    remedy = "Upgrade KServe to 0.20 or later."
    try:
        found = get("/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager")
    except Absent:
        return Requirement("KServe's version", "", "unknown", "no controller in the namespace kserve", remedy)
    containers = found["spec"]["template"]["spec"]["containers"]
    tag = next(item["image"] for item in containers if item["name"] == "manager").rpartition(":")[2]
    number = tuple(int(part) for part in tag.removeprefix("v").split(".")[:2] if part.isdigit())
    if len(number) < 2:
        return Requirement("KServe's version", "", "unknown", f"image tag {tag}", remedy)
    state: Literal["ok", "missing"] = "ok" if number >= OLDEST_KSERVE else "missing"
    return Requirement("KServe's version", "Standard, Knative", state, tag, remedy)


def gateway(get: Get) -> Requirement:
    """Check for the Gateway API, and for a Gateway to attach routes to."""
    if "httproutes" not in served(get, "/apis/gateway.networking.k8s.io/v1"):
        return Requirement(
            "Gateway API", "Standard", "missing", "no HTTPRoute", "Install a Gateway API implementation."
        )
    gateways = get("/apis/gateway.networking.k8s.io/v1/gateways")["items"]
    names = [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in gateways]
    if not names:
        return Requirement(
            "Gateway API", "Standard", "missing", "no Gateway", "Make a Gateway; set gateway.parentRefs."
        )
    return Requirement("Gateway API", "Standard", "ok", f"gateway.parentRefs: {', '.join(names)}")


def knative(get: Get) -> Requirement:
    """Check for Knative Serving."""
    there = "services" in served(get, "/apis/serving.knative.dev/v1")
    remedy = "Install Knative Serving, or use mode Standard."
    return Requirement("Knative", "Knative", "ok" if there else "missing", "installed" if there else "none", remedy)


def features(get: Get) -> Requirement:
    """Check the Knative flags that the chart can use."""
    try:
        data = get("/api/v1/namespaces/knative-serving/configmaps/config-features").get("data", {})
    except Absent:
        return Requirement("Knative's flags", "", "unknown", "no config-features in knative-serving")
    enabled = [name for name in FEATURES if data.get(name, "disabled").lower() == "enabled"]
    lacking = [f"{name} (for {use})" for name, use in FEATURES.items() if name not in enabled]
    detail = f"knative.features: [{', '.join(enabled)}]"
    remedy = f"If wanted, enable in config-features: {'; '.join(lacking)}."
    return Requirement("Knative's flags", "", "missing" if lacking else "ok", detail, remedy)


def metrics(get: Get) -> Requirement:
    """Check for the metrics API, which every HorizontalPodAutoscaler needs."""
    there = "pods" in served(get, "/apis/metrics.k8s.io/v1beta1")
    remedy = "Install metrics-server, or set autoscaling.enabled to false."
    return Requirement("Metrics API", "", "ok" if there else "missing", "installed" if there else "none", remedy)


def storage(get: Get) -> Requirement:
    """Check that KServe's storage initializer may run where Pod Security `restricted` is enforced."""
    listed = get(f"{KSERVE}/v1alpha1/clusterstoragecontainers")["items"] if has_storage(get) else []
    loose = [item["metadata"]["name"] for item in listed if not restricted(item["spec"]["container"])]
    remedy = "Give its container allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, runAsNonRoot: true."
    if not listed:
        return Requirement(
            "Storage initializer", "", "missing", "no ClusterStorageContainer", "Install one of KServe's."
        )
    detail = f"not restricted: {', '.join(loose)}" if loose else "fit for Pod Security restricted"
    return Requirement("Storage initializer", "", "missing" if loose else "ok", detail, remedy)


def has_storage(get: Get) -> bool:
    """Whether there are ClusterStorageContainers."""
    return "clusterstoragecontainers" in served(get, f"{KSERVE}/v1alpha1")


def restricted(container: Json) -> bool:
    """Whether a container by itself meets what Pod Security `restricted` asks of containers."""
    security = container.get("securityContext") or {}
    dropped = security.get("capabilities", {}).get("drop", [])
    return security.get("allowPrivilegeEscalation") is False and "ALL" in dropped


def monitors(get: Get) -> Requirement:
    """Check for the Prometheus Operator."""
    there = "podmonitors" in served(get, "/apis/monitoring.coreos.com/v1")
    detail = "podMonitor.enabled can be true" if there else "none: pods are annotated for scraping"
    return Requirement("PodMonitor", "", "ok", detail)


def served(get: Get, api: str) -> set[str]:
    """The resources of an API group and version; empty if it is not installed."""
    try:
        return {entry["name"] for entry in get(api)["resources"]}
    except Absent:
        return set()


def rows(findings: list[Requirement]) -> Iterator[dict[str, str]]:
    """Findings as rows of a table."""
    for finding in findings:
        remedy = "" if finding.state == "ok" else finding.remedy
        yield {"what": finding.what, "state": finding.state, "detail": finding.detail, "remedy": remedy}
