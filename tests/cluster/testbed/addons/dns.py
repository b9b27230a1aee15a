"""CoreDNS: names of Services and pods. It knows no name outside the cluster."""

from tests.cluster.testbed.addons import containers, small
from tests.cluster.testbed.api import Object, load, named
from tests.cluster.testbed.catalog import COREDNS
from tests.cluster.testbed.places import DNS_IP, MANIFESTS

NAMESPACE = "kube-system"


def objects() -> list[Object]:
    """The DNS server behind the address the kubelet hands to pods."""
    found = small(load(MANIFESTS / "coredns.yaml"))
    containers(named(found, "Deployment", "coredns"))[0]["image"] = COREDNS.tag
    named(found, "Service", "kube-dns")["spec"]["clusterIP"] = DNS_IP
    return found
