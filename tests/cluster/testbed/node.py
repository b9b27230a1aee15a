"""The node: its network bridge and kernel settings, containerd, the kubelet and kube-proxy."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.testbed import certificates as pki
from tests.cluster.testbed import firewall, host
from tests.cluster.testbed.build import KUBE, KUBE_ROUTER
from tests.cluster.testbed.places import (
    BRIDGE,
    CGROUP,
    CONTAINERD_SOCKET,
    DATA,
    DNS_IP,
    KUBECONFIG,
    KUBELET_PORT,
    NODE,
    NODE_IP,
    POD_RANGE,
    RUN,
    SERVICE_RANGE,
)
from tests.cluster.testbed.process import Daemon, run

PAUSE_IMAGE = "dev.local/pause:testbed"
CNI_CONFIG = DATA / "cni"

# The bridge gives each pod an address and a route to the node; nothing leads out of the machine.
CNI: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "testbed",
    "plugins": [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "hairpinMode": True,  # a pod may reach itself through its Service
            "ipam": {
                "type": "host-local",
                "dataDir": str(DATA / "addresses"),
                "ranges": [[{"subnet": POD_RANGE, "rangeStart": "10.86.1.1", "gateway": NODE_IP}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}

CONTAINERD = f"""\
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]  # or it makes /opt/containerd
root = "{DATA}/containerd"
state = "{RUN}/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true  # lowering a score needs CAP_SYS_RESOURCE, which a virtual machine may lack
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{RUN}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{CNI_CONFIG}"
"""

KUBELET: dict[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": NODE_IP,
    "port": KUBELET_PORT,
    "healthzPort": 0,
    "clusterDNS": [DNS_IP],
    "clusterDomain": "cluster.local",
    "resolvConf": "",  # no name server outside the cluster
    "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(pki.CA.crt)}},
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{CGROUP}",
    "failCgroupV1": False,
    "failSwapOn": False,
    "localStorageCapacityIsolation": False,  # a virtual machine's file systems can't always be measured
    "imageGCHighThresholdPercent": 100,  # images do not come from a registry, so never collect them
    "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
    "maxPods": 200,
    "podLogsDir": str(DATA / "pod-logs"),
    "volumePluginDir": str(DATA / "volume-plugins"),
    "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
    "syncFrequency": "10s",  # how soon a changed ConfigMap reaches a pod
    "serializeImagePulls": False,
}

KUBE_PROXY: dict[str, Any] = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "iptables",
    "clusterCIDR": POD_RANGE,
    "clientConnection": {"kubeconfig": str(pki.kubeconfig("kube-proxy"))},
    "hostnameOverride": NODE,
    "healthzBindAddress": "127.0.0.1:20256",
    "metricsBindAddress": "127.0.0.1:20249",
    "nodePortAddresses": ["127.0.0.0/8"],
    "iptables": {"localhostNodePorts": True},
    # Leave the machine's connection tracking as it is.
    "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
}


def is_prepared() -> bool:
    """Whether `prepare` has nothing to do."""
    return host.BEFORE.exists() and all(map(Path.exists, host.cgroups())) and bool(host.links())


def prepare() -> None:
    """Set up what a node's daemons expect from a machine, after recording its state."""
    host.remember()
    host.set_sysctls({"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"})
    host.make_cgroups()
    if host.links():
        return
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{NODE_IP}/{POD_RANGE.partition('/')[2]}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


def containerd() -> Daemon:
    """The testbed's own containerd, separate from one that the machine may have."""
    CNI_CONFIG.mkdir(parents=True, exist_ok=True)
    (CNI_CONFIG / "testbed.conflist").write_text(json.dumps(CNI, indent=2))
    config = DATA / "containerd.toml"
    config.write_text(CONTAINERD)
    return Daemon("containerd", [which("containerd"), f"--config={config}"])


def kubelet() -> Daemon:
    """The kubelet."""
    config = DATA / "kubelet.yaml"
    config.write_text(yaml.safe_dump(KUBELET, sort_keys=False))
    return Daemon("kubelet", [
        KUBE.folder / "kubelet", f"--config={config}", f"--root-dir={DATA / 'kubelet'}",
        f"--kubeconfig={pki.kubeconfig('kubelet')}", f"--hostname-override={NODE}", f"--node-ip={NODE_IP}",
        f"--cert-dir={DATA / 'kubelet' / 'pki'}",
    ])  # fmt: skip


def kube_proxy() -> Daemon:
    """kube-proxy: Services, and the node ports on loopback."""
    config = DATA / "kube-proxy.yaml"
    config.write_text(yaml.safe_dump(KUBE_PROXY, sort_keys=False))
    return Daemon("kube-proxy", [KUBE.folder / "kube-proxy", f"--config={config}"])


def kube_router() -> Daemon:
    """kube-router's firewall, which enforces NetworkPolicies, without its routes and its Services."""
    parts = ("--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--run-loadbalancer=false")
    return Daemon("kube-router", [
        KUBE_ROUTER.folder / "kube-router", *parts, f"--kubeconfig={KUBECONFIG}", f"--hostname-override={NODE}",
        f"--service-cluster-ip-range={SERVICE_RANGE}", "--health-port=20258", "--metrics-port=0",
    ])  # fmt: skip


def firewall_lacking() -> str:
    """Why NetworkPolicies are not enforced yet."""
    return "" if any("KUBE-ROUTER-FORWARD" in rule for rule in firewall.rules()) else "no rules of kube-router"


def which(program: str) -> str:
    """The path of a program on the machine. Raises FileNotFoundError if there is none."""
    if path := shutil.which(program):
        return path
    raise FileNotFoundError(f"expected the program {program} on PATH, found none")
