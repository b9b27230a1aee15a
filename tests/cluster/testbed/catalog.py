"""Make the images that the cluster runs, and load them into it."""

from pathlib import Path

from tests.cluster.testbed import build
from tests.cluster.testbed.images import FOLDER, PYTHON, PYTHON_BASE, Built, Image, PythonBase, buildah
from tests.cluster.testbed.places import CONTAINERD_SOCKET, DATA, PROJECT
from tests.cluster.testbed.process import run

# The container that holds a pod's network; Debian's catatonit can do just that.
PAUSE = Image("pause", build.CATATONIT, "usr/bin/catatonit", arguments=("-P",))
COREDNS = Image("coredns", build.COREDNS, "coredns")
METRICS_SERVER = Image("metrics-server", build.METRICS_SERVER, "metrics-server")
ENVOY = Image("envoy", build.WHEELS, build.ENVOY, base=PYTHON, place="/usr/local/bin/envoy")
# Its chart calls it by name.
ENVOY_GATEWAY = Image("envoy-gateway", build.ENVOY_GATEWAY, "envoy-gateway", place="/usr/local/bin/envoy-gateway")
KNATIVE = {
    program: Image(f"knative-{program}", build.KNATIVE, program)
    for program in ("controller", "webhook", "activator", "autoscaler", "queue")
}
KOURIER = Image("kourier", build.KOURIER, "kourier")
KSERVE = Image("kserve-manager", build.KSERVE, "manager")
VERSITYGW = Image("versitygw", build.VERSITYGW, "versitygw")
PROMETHEUS = Image("prometheus", build.PROMETHEUS, "usr/bin/prometheus", base=PYTHON)
STORAGE_INITIALIZER = Built("storage-initializer", FOLDER / "storage-initializer/Dockerfile",
                            context=FOLDER / "storage-initializer", copies=(".",))  # fmt: skip
SERVICES = tuple(
    Built(f"tabserve-{name}", PROJECT / "Dockerfile", context=PROJECT, target=name, version="dev",
          copies=("requirements.lock", "pyproject.toml", "tabserve", name))
    for name in ("predictor", "transformer")
)  # fmt: skip


# Every image of the cluster itself; the base comes before those built on it.
TESTBED: tuple[Image | Built | PythonBase, ...] = (
    PYTHON_BASE, PAUSE, COREDNS, METRICS_SERVER, ENVOY, ENVOY_GATEWAY, *KNATIVE.values(), KOURIER, KSERVE,
    STORAGE_INITIALIZER, VERSITYGW, PROMETHEUS,
)  # fmt: skip


def make(image: Image | Built | PythonBase) -> None:
    """Make an image's archive, and drop those of its earlier versions."""
    buildah("rm", "--all")  # left over from interrupted builds
    if image is not PYTHON_BASE and not has_base():
        buildah("pull", f"oci-archive:{PYTHON_BASE.archive}")
    image.make()
    buildah("rm", "--all")
    if image is not PYTHON_BASE:
        buildah("rmi", image.tag)  # the archive is what counts
    buildah("rmi", "--prune")
    for old in image.archive.parent.glob(f"{image.name}-{'?' * 12}.tar"):
        if old != image.archive:
            old.unlink()


def has_base() -> bool:
    """Whether buildah's storage holds the base image (it can be emptied without the archives)."""
    return PYTHON in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split() or not PYTHON_BASE.archive.exists()


def is_loaded(image: Image | Built | PythonBase) -> bool:
    """Whether the node has exactly this version of an image."""
    return loaded(image).exists() and loaded(image).read_text() == image.archive.name


def load(image: Image | Built | PythonBase) -> None:
    """Import an image into the node."""
    run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import", image.archive)
    loaded(image).parent.mkdir(exist_ok=True)
    loaded(image).write_text(image.archive.name)


def provide(image: Image | Built | PythonBase) -> None:
    """Make an image's archive, and import it into the node, as far as that is yet to be done."""
    if not image.archive.exists():
        make(image)
    if not is_loaded(image):
        load(image)


def loaded(image: Image | Built | PythonBase) -> Path:
    """The file that says which version of an image the node has."""
    return DATA / "images" / image.name
