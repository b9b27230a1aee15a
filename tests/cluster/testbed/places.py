"""Folders, names and addresses of the testbed, each written once."""

import os
from pathlib import Path

NODE = "tabserve"
BRIDGE = "tabserve0"  # the one network link: the pods' bridge, whose address is also the node's
CGROUP = "tabserve"

NODE_IP = "10.86.0.1"
POD_RANGE = "10.86.0.0/16"
SERVICE_RANGE = "10.87.0.0/16"
API_SERVICE_IP = "10.87.0.1"
DNS_IP = "10.87.0.10"

API_PORT = 16443
ETCD_PORT = 12379
ETCD_PEER_PORT = 12380
KUBELET_PORT = 20250
# Node ports; kube-proxy opens them on 127.0.0.0/8 only.
STANDARD_PORT = 30080  # Envoy Gateway: InferenceServices in Standard mode
KNATIVE_PORT = 30081  # Kourier: InferenceServices in Knative mode
S3_PORT = 30082
PROMETHEUS_PORT = 30083

DATA = Path("/var/lib/tabserve-testbed")  # everything of the running cluster; `down` removes it
RUN = Path("/run/tabserve-testbed")  # sockets and pids: a socket's path must be short
LOGS = DATA / "logs"
MANIFESTS = Path(__file__).parent / "manifests"
PINS = Path(__file__).parent / "pins"
PROJECT = Path(__file__).parents[3]

KUBECONFIG = DATA / "kubeconfig" / "admin"
CONTAINERD_SOCKET = RUN / "containerd.sock"
BUCKET = "models"
S3 = DATA / "s3"  # what the S3 server serves: a folder per bucket
VOLUME = DATA / "volume"  # what the PersistentVolume `bundles` holds


def cache() -> Path:
    """The folder for what is slow to make and is kept between clusters: programs, images."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tabserve"
