"""CoreDNS: names of Services and pods, and none outside the cluster."""

from tests.cluster.testbed.addons import containers, small
from tests.cluster.testbed.api import Object, load, named
from tests.cluster.testbed.catalog import COREDNS
from tests.cluster.testbed.places import DNS_IP, MANIFESTS

NAMESPACE = "kube-system"


def objects() -> list[Object]:
    """The DNS server, at the address that the kubelet gives to pods."""
    found = small(load(MANIFESTS / "coredns.yaml"))
    containers(named(found, "Deployment", "coredns"))[0]["image"] = COREDNS.tag
    named(found, "Service", "kube-dns")["spec"]["clusterIP"] = DNS_IP
    return found
