"""`python -m tests.cluster.testbed up [--add PART] | down | status | images`."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from functools import partial

from tests.cluster.testbed import api, catalog, host, machine
from tests.cluster.testbed.build import link_tools
from tests.cluster.testbed.places import KNATIVE_PORT, KUBECONFIG, PROMETHEUS_PORT, S3_PORT, STANDARD_PORT, cache
from tests.cluster.testbed.process import CommandFailed, stop
from tests.cluster.testbed.table import ADDED, Row, image, loaded, rows

# In this order: first what would restart others, last what the others talk to.
DAEMONS = (
    "kube-router",
    "kubelet",
    "kube-proxy",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
    "containerd",
)


def up(*added: str) -> None:
    """Bring up what is not up, with a line of progress for each thing that had to be done. added: optional parts."""
    if reason := machine.unsuitable():
        raise SystemExit(reason)
    began = time.monotonic()
    table = rows(*added)
    done = [row for row in table if begin(row)]
    for row in (row for row in table if not row.blocks):
        settle(row, tell=row in done)
    tools = link_tools()
    print(f"ready: {len(done)} things done in {time.monotonic() - began:.0f} s")
    print(f"export KUBECONFIG={KUBECONFIG}\nexport PATH={tools}:$PATH")
    print(f"Standard mode http://127.0.0.1:{STANDARD_PORT}   Knative mode http://127.0.0.1:{KNATIVE_PORT}")
    print(f"S3 http://127.0.0.1:{S3_PORT}   Prometheus http://127.0.0.1:{PROMETHEUS_PORT}")


def begin(row: Row) -> bool:
    """Start a thing unless it is there, and return whether it had to be started; wait for it if others need it."""
    began = time.monotonic()
    there = row.there()
    if not there:
        try:
            row.start()
        except (CommandFailed, api.ApiError) as error:
            raise SystemExit(f"{row.name} failed: {error}") from error
    if row.blocks:
        settle(row)
    if not there:
        print(f"{time.monotonic() - began:6.1f} s  {row.name}", flush=True)
    return not there


def settle(row: Row, tell: bool = False) -> None:
    """Wait until a thing is ready, and mark it as such."""
    began = time.monotonic()
    try:
        api.wait(row.name, row.lacking, row.seconds, row.explain)
    except (CommandFailed, api.NotReadyInTime, api.ApiError) as error:
        raise SystemExit(f"{row.name} failed: {error}") from error
    if row.marker:
        row.marker.parent.mkdir(exist_ok=True)
        row.marker.touch()
    if tell:
        print(f"{time.monotonic() - began:6.1f} s  … {row.name} is ready", flush=True)


def down() -> None:
    """End the cluster, and restore the machine."""
    if reason := machine.unsuitable():
        raise SystemExit(reason)
    began = time.monotonic()
    for name in DAEMONS:
        stop(name)
    host.restore()
    print(f"down in {time.monotonic() - began:.0f} s")


def status() -> None:
    """Print a line for each thing in the testbed: absent, ready, or what is missing."""
    if not KUBECONFIG.exists():
        raise SystemExit("down: `make cluster-up` brings it up")
    states = [(row.name, row_state(row)) for row in rows()]
    for name, state in states:
        print(f"{name:40} {state}")
    if any(state != "ready" for _, state in states):
        raise SystemExit(1)


def row_state(row: Row) -> str:
    """`ready`, or what a row is missing."""
    return (api.asked(row.lacking) or "ready") if row.there() else "not there"


def images() -> None:
    """Build both service images and bring them into the cluster."""
    for made in catalog.SERVICES:
        begin(image(made))
        begin(loaded(made))
        print(made.tag)


def main() -> None:
    """Run a command, on the testbed or, if that makes sense, on the cluster that TABSERVE_KUBECONFIG names."""
    parser = argparse.ArgumentParser(prog="testbed", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "images"])
    parser.add_argument("--add", choices=ADDED, action="append", default=[], help="a part to bring up as well")
    options = parser.parse_args()
    command: str = options.command
    if given := os.environ.get("TABSERVE_KUBECONFIG"):
        print(f"{command}: nothing to do, TABSERVE_KUBECONFIG={given} is used instead of the testbed")
        sys.exit(0)
    with alone():
        run(command, options.add)


def run(command: str, added: list[str]) -> None:
    """Run a command on the testbed. added: the parts to bring up as well."""
    commands: dict[str, Callable[[], None]] = {
        "up": partial(up, *added),
        "down": down,
        "status": status,
        "images": images,
    }
    commands[command]()


@contextmanager
def alone() -> Generator[None]:
    """Wait until no other command changes the testbed."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


if __name__ == "__main__":
    main()
