"""Storage for bundles: an S3 server with a bucket, and a volume; both are folders on this machine."""

from pathlib import Path

from tests.cluster.testbed.addons import containers, namespace, node_port, small
from tests.cluster.testbed.api import Object, load, named
from tests.cluster.testbed.catalog import VERSITYGW
from tests.cluster.testbed.places import BUCKET, MANIFESTS, S3, S3_PORT, VOLUME

NAMESPACE = "storage"
MODELS = "models"  # the namespace of InferenceServices


def objects() -> list[Object]:
    """The S3 server; the namespace `models`, its S3 credentials and its volume `bundles`."""
    for folder in (S3 / BUCKET, VOLUME):
        folder.mkdir(parents=True, exist_ok=True)
    found = small(load(MANIFESTS / "storage.yaml"))
    server = named(found, "Deployment", "s3")
    containers(server)[0]["image"] = VERSITYGW.tag
    host_path(server["spec"]["template"]["spec"]["volumes"][0], S3)
    host_path(named(found, "PersistentVolume", "bundles")["spec"], VOLUME)
    return [
        namespace(NAMESPACE),
        # Pods made by KServe's webhook and the chart must pass the strictest Pod Security Standard.
        namespace(MODELS, **{"pod-security.kubernetes.io/enforce": "restricted"}),
        *found,
        node_port("s3-loopback", NAMESPACE, {"app": "s3"}, 7070, S3_PORT),
    ]


def host_path(volume: Object, folder: Path) -> None:
    """Make a volume a folder on this machine."""
    volume["hostPath"] = {"path": str(folder), "type": "Directory"}
