"""Prometheus from Debian, which scrapes every pod with the annotation `prometheus.io/scrape`."""

from tests.cluster.testbed.addons import containers, namespace, node_port, small
from tests.cluster.testbed.api import Object, load, named
from tests.cluster.testbed.catalog import PROMETHEUS
from tests.cluster.testbed.images import PYTHON
from tests.cluster.testbed.places import MANIFESTS, PROMETHEUS_PORT

NAMESPACE = "monitoring"


def objects() -> list[Object]:
    """Prometheus, its configuration and its right to list pods; its page and API are on 127.0.0.1."""
    found = small(load(MANIFESTS / "prometheus.yaml"))
    server, targets = containers(named(found, "Deployment", "prometheus"))
    server["image"], targets["image"] = PROMETHEUS.tag, PYTHON
    named(found, "ConfigMap", "prometheus")["data"]["pod_targets.py"] = (MANIFESTS / "pod_targets.py").read_text()
    loopback = node_port("prometheus", NAMESPACE, {"app": "prometheus"}, 9090, PROMETHEUS_PORT)
    return [namespace(NAMESPACE), *found, loopback]
