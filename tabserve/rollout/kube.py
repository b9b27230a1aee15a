"""The Kubernetes API, with a pod's token and nothing but the standard library, or with a kubeconfig."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tabserve import kubeconfig
from tabserve.kubeconfig import MERGE, Ask, Away
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.state import State, parse

Object: TypeAlias = dict[str, Any]
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ROUTES = "gateway.networking.k8s.io/v1", "httproutes"
CORE, BATCH = "v1", "batch/v1"
STATE = "state.json"
"""The key of the ConfigMap that holds the state."""
ORDER = "tabserve/order"
"""The annotation of the ConfigMap that says what the gate is to do."""
_SECONDS = 10


class Refused(RolloutError):
    """The API server refuses a request. status: its HTTP status."""

    def __init__(self, status: int, path: str, told: str) -> None:
        super().__init__(path, f"Kubernetes refuses it ({status}: {told})", "Compare the rights of the Role.")
        self.status = status


class Api:
    """The objects of one namespace."""

    def __init__(self, ask: Ask, namespace: str) -> None:
        self._ask, self._namespace = ask, namespace

    def get(self, of: tuple[str, str], name: str) -> Object | None:
        """An object, None if there is none. Raises Away, Refused."""
        return self._maybe("GET", self._path(of, name))

    def find(self, of: tuple[str, str], selector: str) -> list[Object]:
        """The objects that a selector of labels finds. Raises Away, Refused."""
        query = urlencode({"labelSelector": selector})
        found: list[Object] = self._send("GET", f"{self._path(of)}?{query}")["items"]
        return found

    def create(self, of: tuple[str, str], body: Object) -> None:
        """Make an object. Raises Away, Refused."""
        self._send("POST", self._path(of), body)

    def patch(self, of: tuple[str, str], name: str, body: Object) -> bool:
        """Merge a change into an object; returns whether there is one. Raises Away, Refused."""
        return self._maybe("PATCH", self._path(of, name), body) is not None

    def delete(self, of: tuple[str, str], name: str) -> bool:
        """Delete an object; returns whether there was one. Raises Away, Refused."""
        return self._maybe("DELETE", self._path(of, name), {"propagationPolicy": "Background"}) is not None

    def _path(self, of: tuple[str, str], name: str = "") -> str:
        version, plural = of
        group = "apis" if "/" in version else "api"
        return f"/{group}/{version}/namespaces/{self._namespace}/{plural}{name and '/' + name}"

    def _maybe(self, method: str, path: str, body: Object | None = None) -> Object | None:
        try:
            return self._send(method, path, body)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def _send(self, method: str, path: str, body: Object | None = None) -> Object:
        status, answer = self._ask(method, path, body)
        found: Object = json.loads(answer or b"{}")
        if status >= 400:
            raise Refused(status, path, str(found.get("message", "")))
        return found


def with_token(account: Path = ACCOUNT, environment: Mapping[str, str] = os.environ) -> Ask:
    """Asks as the pod's ServiceAccount; the token is read each time, because it is renewed. Raises RolloutError."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        raise RolloutError(str(account), "no token of a pod is there", "Run it in a pod, as the chart's Job does.")
    base = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    tls = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def ask(method: str, path: str, body: Object | None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {(account / 'token').read_text().strip()}", "Accept": "application/json"}
        headers["User-Agent"] = "tabserve-rollout"
        headers["Content-Type"] = MERGE if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(base + path, data, headers, method=method), timeout=_SECONDS, context=tls) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()
        except (OSError, HTTPException) as error:
            raise Away(f"no answer from {base}: {error}") from None

    return ask


def with_kubeconfig(context: str | None = None) -> Ask:
    """Asks with the rights of the kubeconfig. Raises RolloutError if there is none."""
    try:
        return kubeconfig.connect(context, _SECONDS)
    except kubeconfig.NoKubeconfig as error:
        raise RolloutError("kubeconfig", str(error), "Set KUBECONFIG, or run it in a pod.") from None


def reach(namespace: str | None) -> tuple[Api, str]:
    """The API and the namespace, as a pod if this is one, otherwise by the kubeconfig. Raises RolloutError."""
    if (ACCOUNT / "token").exists():
        found = namespace or (ACCOUNT / "namespace").read_text().strip()
        return Api(with_token(), found), found
    found = namespace or "default"
    return Api(with_kubeconfig(), found), found


class Kept(NamedTuple):
    """What the ConfigMap of a rollout holds. order: what a command asked the gate for."""

    state: State
    order: str


def kept(api: Api, namespace: str, release: str) -> Kept | None:
    """The state of a release's rollout, None if there is none. Raises Away, and RolloutError for a damaged one."""
    found = api.get((CORE, "configmaps"), f"{release}-rollout")
    if found is None:
        return None
    state = parse(found.get("data", {}).get(STATE, ""), f"ConfigMap {namespace}/{release}-rollout")
    return Kept(state, found["metadata"].get("annotations", {}).get(ORDER, ""))
