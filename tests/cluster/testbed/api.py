"""Use a Kubernetes API: apply, read and delete objects, and wait with a deadline and an explanation."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

Object = dict[str, Any]


class ApiError(RuntimeError):
    """The API server refused a request: its status and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class NotReadyInTime(RuntimeError):
    """What was waited for did not happen before its deadline."""


class Cluster:
    """A Kubernetes cluster, reached through a kubeconfig file."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        settings.retries = False
        self.client = client.ApiClient(settings)
        self.kinds: dict[str, dict[str, Object]] = {}  # API version → kind → its entry in discovery

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> str:
        """The answer to one request. Raises ApiError for a status of 400 or more, with 503 if there is no answer."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        prepared = self.client.param_serialize(
            method, path, query_params=[], header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            response = self.client.call_api(*prepared, _request_timeout=30)
            text: str = response.read().decode()  # type: ignore[no-untyped-call]
        except HTTPError as error:
            raise ApiError(503, f"no answer from {self.client.configuration.host}: {error}") from error
        if response.status >= 400:
            raise ApiError(response.status, message(text))
        return text

    def path(self, api_version: str, kind: str, namespace: str | None, name: str = "") -> str:
        """The path of a kind's objects, or of one. Raises ApiError 404 for a kind that the cluster does not know."""
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        if kind not in self.kinds.get(api_version, {}):
            resources = json.loads(self.request("GET", root))["resources"]
            self.kinds[api_version] = {entry["kind"]: entry for entry in resources if "/" not in entry["name"]}
        if kind not in self.kinds[api_version]:
            raise ApiError(404, f"no kind {kind} in {api_version}")
        entry = self.kinds[api_version][kind]
        within = f"/namespaces/{namespace or 'default'}" if entry["namespaced"] else ""
        return f"{root}{within}/{entry['name']}" + (f"/{name}" if name else "")

    def apply(self, *objects: Object) -> None:
        """Create objects, or change existing ones to what is given (server-side apply)."""
        for item in objects:
            try:
                self.create_or_change(item)
            except ApiError as error:
                raise ApiError(error.status, f"{item['kind']} {item['metadata']['name']}: {error}") from error

    def create_or_change(self, item: Object) -> None:
        """Create one object, or change it if it exists. Creating costs the API server half as much as applying."""
        kind = item["apiVersion"], item["kind"], item["metadata"].get("namespace")
        try:
            self.request("POST", f"{self.path(*kind)}?fieldManager=testbed", item)
        except ApiError as error:
            if error.status not in (409, 422):  # a Service that asks for a port it already has is invalid
                raise
            path = f"{self.path(*kind, item['metadata']['name'])}?fieldManager=testbed&force=true"
            self.request("PATCH", path, item, "application/apply-patch+yaml")

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object. Raises ApiError 404 if there is none."""
        answer: Object = json.loads(self.request("GET", self.path(api_version, kind, namespace, name)))
        return answer

    def find(self, api_version: str, kind: str, namespace: str, **labels: str) -> list[Object]:
        """The objects in a namespace with these labels."""
        query = urlencode({"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())})
        answer = json.loads(self.request("GET", f"{self.path(api_version, kind, namespace)}?{query}"))
        items: list[Object] = answer["items"]
        return items

    def merge(self, api_version: str, kind: str, name: str, namespace: str, change: Object) -> None:
        """Change an object with a JSON merge patch."""
        path = self.path(api_version, kind, namespace, name)
        self.request("PATCH", path, change, "application/merge-patch+json")

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete an object and, before it, everything that it owns; it may be gone already."""
        path = self.path(api_version, kind, namespace, name)
        try:
            self.request("DELETE", f"{path}?propagationPolicy=Foreground")
        except ApiError as error:
            if error.status != 404:
                raise

    def exists(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> bool:
        """Whether the object exists."""
        try:
            self.get(api_version, kind, name, namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def unavailable(self, namespace: str) -> str:
        """The Deployments in a namespace with too few ready replicas, with the numbers; empty if all are ready."""
        lacking = []
        for item in self.find("apps/v1", "Deployment", namespace):
            status, wanted = item.get("status", {}), item["spec"]["replicas"]
            seen = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
            updated = min(status.get("updatedReplicas", 0), status.get("readyReplicas", 0))
            if not seen or updated < wanted or status.get("replicas", 0) > wanted:
                lacking.append(f"{item['metadata']['name']} {updated}/{wanted}")
        return ", ".join(lacking)

    def unserved(self, definition: Object) -> str:
        """The name of a CustomResourceDefinition that the API server does not serve yet; empty when it does."""
        name: str = definition["metadata"]["name"]
        if definition["kind"] != "CustomResourceDefinition":
            return ""
        return name if condition(self.get(definition["apiVersion"], definition["kind"], name), "Established") else ""

    def logs(self, namespace: str, pod: str, container: str, lines: int = 30) -> str:
        """The end of a container's log."""
        query = urlencode({"container": container, "tailLines": lines})
        try:
            return self.request("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log?{query}")
        except ApiError as error:
            return f"({error})"

    def explain(self, namespace: str) -> str:
        """What keeps a namespace's pods from being ready: states, ends of logs, warnings."""
        parts = [f"--- namespace {namespace}"]
        for pod in self.find("v1", "Pod", namespace):
            name, status = pod["metadata"]["name"], pod.get("status", {})
            containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
            parts.append(f"pod {name}: {status.get('phase')}")
            for container in (item for item in containers if not item["ready"]):
                parts.append(f"  container {container['name']}: {json.dumps(container['state'])}")
                parts.append(self.logs(namespace, name, container["name"]))
        events = self.find("v1", "Event", namespace)
        warnings = [event for event in events if event["type"] == "Warning"][-15:]
        parts += [
            f"event {event['involvedObject']['name']}: {event['reason']}: {event['message']}" for event in warnings
        ]
        return "\n".join(parts)


def message(text: str) -> str:
    """The message in an answer of the API server, or the answer itself if it is not a Status."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


def wait(what: str, lacking: Callable[[], str], seconds: float, explain: Callable[[], str], every: float = 0.5) -> None:
    """Wait until `lacking` says that nothing is missing any more ("").

    An API that does not answer yet counts as missing. Raises NotReadyInTime after `seconds`, with what was last missing
    and with `explain`'s words.
    """
    until = time.monotonic() + seconds
    while reason := asked(lacking):
        if time.monotonic() > until:
            raise NotReadyInTime(f"{what}: not ready after {seconds:.0f} s: {reason}\n{explain()}")
        time.sleep(every)


def asked(lacking: Callable[[], str]) -> str:
    """What is missing, or that the API server can't say."""
    try:
        return lacking()
    except ApiError as error:
        return str(error)


def condition(item: Mapping[str, Any], kind: str) -> str:
    """Why a condition of an object is not True; empty when it is."""
    for entry in item.get("status", {}).get("conditions") or []:
        if entry["type"] == kind:
            return "" if entry["status"] == "True" else f"{kind}: {entry.get('reason')} {entry.get('message', '')}"
    return f"{kind}: not told yet"


def load(*files: Path) -> list[Object]:
    """The objects of manifest files, in their order."""
    return [item for file in files for item in yaml.safe_load_all(file.read_text()) if item]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The only object with this kind and name."""
    (found,) = (item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name)
    return found
