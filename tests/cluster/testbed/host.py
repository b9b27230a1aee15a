"""Record what the testbed changes on the machine, and restore it."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.cluster.testbed import firewall, process
from tests.cluster.testbed.places import BRIDGE, CGROUP, CONTAINERD_SOCKET, DATA, LOGS, RUN
from tests.cluster.testbed.process import CommandFailed, run

DAEMONS = (
    "server", "containerd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
    "kube-router",
)  # fmt: skip
BEFORE = DATA / "before.json"
# Kernel settings that the bring-up, the kubelet or kube-proxy write.
SYSCTLS = (
    "net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables", "net.ipv4.conf.all.route_localnet",
    "vm.overcommit_memory", "vm.panic_on_oom", "kernel.panic", "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys", "kernel.keys.root_maxbytes",
)  # fmt: skip
# Folders that containerd and the kubelet make at fixed places.
FOLDERS = tuple(map(Path, ("/var/log/containers", "/run/containerd/s", "/run/containerd", "/run/netns")))


def remember() -> None:
    """Record the machine's state, once, before anything is changed."""
    for folder in DATA, RUN, LOGS:
        folder.mkdir(parents=True, exist_ok=True)
    if BEFORE.exists():
        return
    before = {
        "sysctls": {name: sysctl(name).read_text().strip() for name in SYSCTLS if sysctl(name).exists()},
        "chains": firewall.chains(),
        "folders": [str(folder) for folder in FOLDERS if folder.exists()],
    }
    BEFORE.write_text(json.dumps(before, indent=2))


def restore() -> None:
    """Restore what `remember` recorded. The daemons are already stopped."""
    kill_containers()
    remove_cgroups()
    unmount()
    for link in reversed(links()):
        delete_link(link)
    if BEFORE.exists():
        before = json.loads(BEFORE.read_text())
        firewall.remove_policies()
        firewall.clean(before["chains"])
        set_sysctls(before["sysctls"])
        for folder in (folder for folder in FOLDERS if str(folder) not in before["folders"] and folder.exists()):
            shutil.rmtree(folder)
    run("rm", "--recursive", "--force", "--one-file-system", RUN, DATA)


def sysctl(name: str) -> Path:
    """The file of a kernel setting."""
    return Path("/proc/sys", *name.split("."))


def set_sysctls(values: Mapping[str, str]) -> None:
    """Write kernel settings that differ."""
    for name, value in values.items():
        if sysctl(name).exists() and sysctl(name).read_text().strip() != value:
            sysctl(name).write_text(value)


def mounts() -> list[tuple[str, str]]:
    """Every mount of the machine as (place, type), in the order of mounting."""
    fields = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [(place.encode().decode("unicode_escape"), kind) for _, place, kind, *_ in fields]


def our_mounts() -> list[str]:
    """The mounts below the testbed's folders."""
    return [place for place, _ in mounts() if place.startswith((f"{DATA}/", f"{RUN}/"))]


def cgroups() -> list[Path]:
    """The testbed's cgroup in every hierarchy, whether it exists or not."""
    return [Path(place, CGROUP) for place, kind in mounts() if kind in ("cgroup", "cgroup2")]


def make_cgroups() -> None:
    """Make the cgroup below which the kubelet puts its pods."""
    for cgroup in cgroups():
        cgroup.mkdir(exist_ok=True)


def our_processes() -> Iterator[int]:
    """The testbed's processes: those in its cgroup, and daemons or containerd shims that name its folders."""
    pids = {int(pid) for cgroup in cgroups() for procs in cgroup.rglob("cgroup.procs")
            for pid in procs.read_text().split()}  # fmt: skip
    yield from sorted(pids)
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if pid not in pids and is_ours(folder):
            yield pid


def is_ours(folder: Path) -> bool:
    """Whether a process, given by its folder in /proc, is a node's program that uses the testbed's folders."""
    try:
        command = (folder / "cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    program = Path(command[0]).name
    if program.startswith("containerd-shim"):
        return str(CONTAINERD_SOCKET) in command
    return program in DAEMONS and any(str(folder) in part for folder in (DATA, RUN) for part in command)


def kill_containers(seconds: float = 30) -> None:
    """End everything that still runs in the testbed's cgroup, and leftover containerd shims."""
    until = time.monotonic() + seconds
    while pids := [pid for pid in our_processes() if process.started_at(pid)]:
        if time.monotonic() > until:
            raise TimeoutError(f"expected every process of the testbed to end, these run: {pids}")
        for pid in pids:
            signal_quietly(pid)
        time.sleep(0.1)


def signal_quietly(pid: int) -> None:
    """Send SIGKILL to a process that may be gone by now."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove_cgroups() -> None:
    """Remove the testbed's cgroups, deepest first."""
    for cgroup in filter(Path.exists, cgroups()):
        for folder in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        cgroup.rmdir()


def unmount() -> None:
    """Unmount everything below the testbed's folders, last mounted first."""
    for place in reversed(our_mounts()):
        run("umount", "--lazy", place)


def traces() -> dict[str, list[str]]:
    """All traces of a testbed on this machine, by kind; empty after `down`."""
    return {
        "processes": [f"{pid} {Path(f'/proc/{pid}/cmdline').read_text()[:80]}" for pid in our_processes()],
        "mounts": our_mounts(),
        "links": links(),
        "rules": [*firewall.ours(), *firewall.sets()],
        "cgroups": [str(cgroup) for cgroup in cgroups() if cgroup.exists()],
        "folders": [str(folder) for folder in (DATA, RUN) if folder.exists()],
    }


def delete_link(name: str) -> None:
    """Delete a network link; a pod's may meanwhile disappear with its network namespace."""
    try:
        run("ip", "link", "delete", name)
    except CommandFailed:
        if Path("/sys/class/net", name).exists():
            raise


def links() -> list[str]:
    """The bridge, if it exists, followed by the links attached to it."""
    net = Path("/sys/class/net")
    ports = [path.parent.name for path in net.glob("*/master") if path.resolve().name == BRIDGE]
    return [BRIDGE, *ports] if (net / BRIDGE).exists() else []
