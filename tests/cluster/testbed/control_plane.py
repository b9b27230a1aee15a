"""The control plane: etcd, the API server, the controller manager and the scheduler."""

from tests.cluster.testbed import certificates as pki
from tests.cluster.testbed.build import ETCD, KUBE
from tests.cluster.testbed.places import (
    API_PORT,
    DATA,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE_IP,
    POD_RANGE,
    SERVICE_RANGE,
)
from tests.cluster.testbed.process import Daemon

ETCD_URL = f"http://127.0.0.1:{ETCD_PORT}"
PEER_URL = f"http://127.0.0.1:{ETCD_PEER_PORT}"


def etcd() -> Daemon:
    """The store, without fsync: after losing its machine, a cluster is started again from scratch."""
    return Daemon("etcd", [
        ETCD.folder / "server", "--name=testbed", f"--data-dir={DATA / 'etcd'}", "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD_URL}", f"--advertise-client-urls={ETCD_URL}",
        f"--listen-peer-urls={PEER_URL}", f"--initial-advertise-peer-urls={PEER_URL}",
        f"--initial-cluster=testbed={PEER_URL}", "--log-level=warn",
    ])  # fmt: skip


def api_server() -> Daemon:
    """The API server, on the bridge's address, so that only this machine and its pods reach it."""
    return Daemon("kube-apiserver", [
        KUBE.folder / "kube-apiserver", f"--etcd-servers={ETCD_URL}",
        f"--bind-address={NODE_IP}", f"--advertise-address={NODE_IP}", f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_RANGE}", "--allow-privileged", "--authorization-mode=Node,RBAC",
        f"--tls-cert-file={pki.API_SERVER.crt}", f"--tls-private-key-file={pki.API_SERVER.key}",
        f"--client-ca-file={pki.CA.crt}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki.SERVICE_ACCOUNTS.crt}",
        f"--service-account-signing-key-file={pki.SERVICE_ACCOUNTS.key}",
        # The node's name is not in any DNS, so the kubelet is called by its address.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={pki.API_SERVER_TO_KUBELET.crt}",
        f"--kubelet-client-key={pki.API_SERVER_TO_KUBELET.key}",
        # Aggregated APIs: metrics-server answers metrics.k8s.io, which the HPA reads.
        "--enable-aggregator-routing", f"--requestheader-client-ca-file={pki.FRONT_PROXY_CA.crt}",
        "--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki.FRONT_PROXY.crt}", f"--proxy-client-key-file={pki.FRONT_PROXY.key}",
    ])  # fmt: skip


def controller_manager() -> Daemon:
    """The controllers; the HPA looks every 5 seconds, so that tests do not wait long for a pod."""
    kubeconfig = pki.kubeconfig("kube-controller-manager")
    return Daemon("kube-controller-manager", [
        KUBE.folder / "kube-controller-manager", f"--kubeconfig={kubeconfig}", "--bind-address=127.0.0.1",
        "--leader-elect=false", "--use-service-account-credentials", f"--cluster-cidr={POD_RANGE}",
        f"--root-ca-file={pki.CA.crt}", f"--service-account-private-key-file={pki.SERVICE_ACCOUNTS.key}",
        "--horizontal-pod-autoscaler-sync-period=5s",
    ])  # fmt: skip


def scheduler() -> Daemon:
    """The scheduler."""
    return Daemon("kube-scheduler", [
        KUBE.folder / "kube-scheduler", f"--kubeconfig={pki.kubeconfig('kube-scheduler')}",
        "--bind-address=127.0.0.1", "--leader-elect=false",
    ])  # fmt: skip
