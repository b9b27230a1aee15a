"""metrics-server: the pods' use of CPU and memory, by which the HPA scales."""

from tests.cluster.testbed import build
from tests.cluster.testbed.addons import chart, namespace, small
from tests.cluster.testbed.api import Object
from tests.cluster.testbed.catalog import METRICS_SERVER

NAMESPACE = "metrics-server"


def objects() -> list[Object]:
    """The chart of metrics-server. An HPA needs two of its measurements, which take about half a minute."""
    repository, tag = METRICS_SERVER.tag.split(":")
    values = {
        "readinessProbe": {"initialDelaySeconds": 1},
        "image": {"repository": repository, "tag": tag},
        "args": ["--kubelet-insecure-tls"],  # the kubelet signs its serving certificate itself
        "defaultArgs": [
            "--cert-dir=/tmp",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-use-node-status-port",
            "--metric-resolution=10s",  # the least that it accepts
            "--kubelet-request-timeout=5s",  # must be less than the resolution
        ],
    }
    folder = build.METRICS_SERVER.taken("sigs.k8s.io/metrics-server", "charts/metrics-server")
    return [namespace(NAMESPACE), *small(chart(folder, "metrics-server", NAMESPACE, values))]
