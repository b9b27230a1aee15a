"""Tell Prometheus which pods to scrape: those annotated `prometheus.io/scrape: "true"`.

Runs next to Prometheus, because Debian builds it without the discovery of Kubernetes pods.
Usage: pod_targets.py FILE - rewrites FILE (Prometheus's file_sd format) every few seconds.
"""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS = 5


def pods() -> list[dict[str, Any]]:
    """Every pod of the cluster."""
    token = (ACCOUNT / "token").read_text()
    request = urllib.request.Request(
        f"https://{os.environ['KUBERNETES_SERVICE_HOST']}/api/v1/pods", headers={"Authorization": f"Bearer {token}"}
    )
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=trust, timeout=SECONDS) as answer:
        items: list[dict[str, Any]] = json.load(answer)["items"]
    return items


def target(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod's target for scraping: its address, path and labels."""
    metadata, annotations = pod["metadata"], pod["metadata"]["annotations"]
    return {
        "targets": [f"{pod['status']['podIP']}:{annotations['prometheus.io/port']}"],
        "labels": {
            "__metrics_path__": annotations.get("prometheus.io/path", "/metrics"),
            "namespace": metadata["namespace"],
            "pod": metadata["name"],
        },
    }


def wanted(pod: dict[str, Any]) -> bool:
    """Whether a pod runs, and asks to be scraped at a port."""
    annotations = pod["metadata"].get("annotations", {})
    asks = annotations.get("prometheus.io/scrape") == "true" and "prometheus.io/port" in annotations
    return asks and pod["status"].get("phase") == "Running" and "podIP" in pod["status"]


def main(file: Path) -> None:
    """Write the targets again and again; Prometheus reads the file when it is replaced."""
    while True:
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps([target(pod) for pod in pods() if wanted(pod)]))
        unfinished.rename(file)
        time.sleep(SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
