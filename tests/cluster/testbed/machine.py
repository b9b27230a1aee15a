"""What the testbed needs from the machine: root, Linux with cgroups, Go, and some Debian packages."""

import os
import shutil
from pathlib import Path

from tests.cluster.testbed.process import run

# The program or file that shows that a Debian package is there.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}


def missing_packages() -> list[str]:
    """The Debian packages to install."""
    return [package for program, package in PACKAGES.items() if not (Path(program).exists() or shutil.which(program))]


def install(*packages: str) -> None:
    """Install Debian packages, if none are named those that are missing."""
    quiet, wanted = {"DEBIAN_FRONTEND": "noninteractive"}, packages or missing_packages()
    run("apt-get", "update", "--quiet", env=quiet)
    run("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *wanted, env=quiet)


def unsuitable() -> str:
    """Why a testbed can't run here; empty if it can."""
    if os.geteuid() != 0:
        return "expected to run as root: the testbed makes a network bridge, mounts and cgroups"
    if not Path("/sys/fs/cgroup").is_dir():
        return "expected cgroups below /sys/fs/cgroup, found none"
    if shutil.which("go") is None:
        return "expected Go 1.26 or later on PATH to build the cluster's programs, found no `go`"
    return ""
