"""The Kubernetes API with the rights of a kubeconfig; needs the package kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Ask: TypeAlias = Callable[[str, str, dict[str, Any] | None], tuple[int, bytes]]
"""Sends a method, a path and a body, and gives a status and an answer. Raises Away."""
MERGE = "application/merge-patch+json"
"""The content type of a PATCH."""


class NoKubeconfig(OSError):
    """There is no kubeconfig that can be used."""


class Away(OSError):
    """The API server does not answer."""


def connect(context: str | None, seconds: float) -> Ask:
    """Asks with the rights of the kubeconfig, once each, and for so many seconds at most. Raises NoKubeconfig."""
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        config.load_kube_config(context=context)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise NoKubeconfig(str(error)) from None
    api = client.ApiClient()
    api.configuration.retries = 0

    def ask(method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Content-Type": MERGE if method == "PATCH" else "application/json"}
        prepared = api.param_serialize(method, path, header_params=headers, body=body, auth_settings=["BearerToken"])
        try:
            response = api.call_api(*prepared, _request_timeout=seconds)
        except HTTPError as error:
            raise Away(f"no answer from {api.configuration.host}: {error}") from None
        return response.status, response.read()  # type: ignore[no-untyped-call]

    return ask
