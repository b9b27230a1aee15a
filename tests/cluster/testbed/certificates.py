"""Certificates and kubeconfig files of the control plane, made with openssl."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.testbed.places import API_PORT, API_SERVICE_IP, DATA, KUBECONFIG, NODE, NODE_IP
from tests.cluster.testbed.process import run

FOLDER = DATA / "certificates"
API_NAMES = ("DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc", "DNS:localhost",
             "IP:127.0.0.1", f"IP:{API_SERVICE_IP}", f"IP:{NODE_IP}")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    name: str

    @property
    def crt(self) -> Path:
        """The certificate's file."""
        return FOLDER / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        """The private key's file."""
        return FOLDER / f"{self.name}.key"


CA = Pair("ca")
FRONT_PROXY_CA = Pair("front-proxy-ca")  # signs the certificate that the API server shows to aggregated API servers
FRONT_PROXY = Pair("front-proxy-client")
API_SERVER = Pair("kube-apiserver")
API_SERVER_TO_KUBELET = Pair("kube-apiserver-to-kubelet")
SERVICE_ACCOUNTS = Pair("service-accounts")

# Who uses the API server, and as whom: the subject's CN is the user, its O the group.
USERS = {
    "admin": "/O=system:masters/CN=admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
}


def make() -> None:
    """Make every certificate and kubeconfig of the control plane, unless they are there."""
    if KUBECONFIG.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    authority(CA)
    authority(FRONT_PROXY_CA)
    sign(API_SERVER, CA, "/CN=kube-apiserver", API_NAMES)
    sign(API_SERVER_TO_KUBELET, CA, "/O=system:masters/CN=kube-apiserver-to-kubelet")
    sign(FRONT_PROXY, FRONT_PROXY_CA, "/CN=front-proxy-client")
    sign(SERVICE_ACCOUNTS, CA, "/CN=service-accounts")
    for user, subject in reversed(USERS.items()):  # the admin's comes last, because it marks the set as complete
        sign(Pair(user), CA, subject)
        write_kubeconfig(user)


def authority(pair: Pair) -> None:
    """Make a self-signed certificate that signs others."""
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "365", "-subj", f"/CN={pair.name}", "-addext", "keyUsage=critical,keyCertSign,digitalSignature",
        "-keyout", pair.key, "-out", pair.crt)  # fmt: skip


def sign(pair: Pair, by: Pair, subject: str, names: tuple[str, ...] = ()) -> None:
    """Make a certificate signed by an authority, for a client and, with `names`, for a server with these names."""
    request = run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                  "-subj", subject, "-keyout", pair.key)  # fmt: skip
    extensions = FOLDER / f"{pair.name}.ext"
    server = f"subjectAltName={','.join(names)}\n" if names else ""
    extensions.write_text(f"extendedKeyUsage=clientAuth,serverAuth\n{server}")
    run("openssl", "x509", "-req", "-days", "365", "-CA", by.crt, "-CAkey", by.key, "-CAcreateserial",
        "-extfile", extensions, "-out", pair.crt, stdin=request)  # fmt: skip


def write_kubeconfig(user: str) -> None:
    """Write the kubeconfig with which a component (or a person, for `admin`) reaches the API server."""
    pair = Pair(user)
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": NODE, "cluster": {"server": f"https://{NODE_IP}:{API_PORT}", "certificate-authority": str(CA.crt)}}
        ],
        "users": [{"name": user, "user": {"client-certificate": str(pair.crt), "client-key": str(pair.key)}}],
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": user}}],
        "current-context": NODE,
    }
    KUBECONFIG.parent.mkdir(parents=True, exist_ok=True)
    kubeconfig(user).write_text(yaml.safe_dump(content, sort_keys=False))


def kubeconfig(user: str) -> Path:
    """The kubeconfig file of one of USERS."""
    return KUBECONFIG.parent / user
