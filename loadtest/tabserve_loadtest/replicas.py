"""The number of ready replicas over time, from the cluster's API through kubectl."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager

import gevent

LINE = '{.metadata.name} {.status.readyReplicas}{"\\n"}'
STOP_SECONDS = 10.0


class Replicas:
    """The output of `kubectl get deployments --watch`: each Deployment's ready replicas at each change."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[float, int]]] = {}

    def add(self, line: str) -> None:
        """Add a line `NAME READY`; without a number none is ready."""
        name, _, ready = line.strip().partition(" ")
        if name:
            self._changes.setdefault(name, []).append((time.time(), int(ready or 0)))

    def since(self, start: float, seconds: float) -> dict[str, list[tuple[float, int]]]:
        """Pairs (seconds after `start`, ready replicas) by Deployment, from 0 on. start: seconds since 1970."""
        return {name: during(changes, start, seconds) for name, changes in self._changes.items()}


def during(changes: list[tuple[float, int]], start: float, seconds: float) -> list[tuple[float, int]]:
    """The changes from `start` on for the given seconds, beginning with the state at `start`."""
    before = [ready for at, ready in changes if at <= start]
    first = before[-1] if before else changes[0][1]
    later = [(at - start, ready) for at, ready in changes if start < at <= start + seconds]
    kept = [(0.0, first)]
    for at, ready in later:
        if ready != kept[-1][1]:
            kept.append((at, ready))
    return kept


@contextmanager
def watching(namespace: str, selector: str) -> Generator[Replicas]:
    """Watch, while the block runs, the Deployments that a label selector chooses in a namespace."""
    found = Replicas()
    command = ["kubectl", "get", "deployments", "--namespace", namespace, "--selector", selector, "--watch"]
    process = subprocess.Popen([*command, "-o", f"jsonpath={LINE}"], stdout=subprocess.PIPE, text=True)
    reader = gevent.spawn(_read, process, found)
    try:
        yield found
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        reader.join(STOP_SECONDS)


def _read(process: subprocess.Popen[str], found: Replicas) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        found.add(line)
