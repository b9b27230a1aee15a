"""Run services under test as real processes: on free ports, awaited over the socket, ended by process id."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
START_SECONDS = 180.0
STOP_SECONDS = 120.0
POLL_SECONDS = 0.05

# Below the kernel's ports for outgoing connections, so that a client can't take the port of a restarting service, and
# below Kubernetes' node ports, which a cluster on this machine takes without listening on them.
_PORTS = range(11000, 30000)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no free port among 100 of {_PORTS}")


@dataclass(frozen=True)
class Service:
    """A started process, its ports and the file its log goes to."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    admin_port: int
    log: Path

    @property
    def url(self) -> str:
        """The URL of REST."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        """The address of gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    def text(self) -> str:
        """Everything that the service has logged so far."""
        return self.log.read_text(errors="replace")

    def told(self) -> list[dict[str, Any]]:
        """The log, of which every line is a JSON object."""
        return [json.loads(line) for line in self.text().splitlines()]

    def get(self, path: str, port: int | None = None) -> tuple[int, bytes]:
        """Status and body of a GET, of REST where no port is given; 0 where nobody answers."""
        with closing(HTTPConnection("127.0.0.1", port or self.http_port, timeout=10)) as connection:
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, HTTPException):
                return 0, b""

    def status(self, path: str) -> int:
        """The status of a GET; 0 if nothing answers."""
        return self.get(path)[0]

    def metrics(self) -> str:
        """The page of its metrics."""
        return self.get("/metrics", self.admin_port)[1].decode()

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = self.metrics().splitlines()
        (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Wait until the condition holds; fails when the time is over or the process has ended."""
        end = time.monotonic() + seconds
        while not condition():
            assert not self.ended(POLL_SECONDS), f"ended with {self.process.returncode} before {what}:\n{self.text()}"
            assert time.monotonic() < end, f"not {what} after {seconds:g} s:\n{self.text()}"

    def wait_ready(self) -> None:
        """Wait until the service says that it is ready."""
        self.wait_for(lambda: self.status("/v2/health/ready") == 200, "ready")

    def wait_live(self) -> None:
        """Wait until the service answers at all."""
        self.wait_for(lambda: self.status("/v2/health/live") == 200, "live")

    def ended(self, within: float) -> bool:
        """Whether the process ends within this many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(within)
        return self.process.poll() is not None

    def wait_metric(self, name: str, value: float) -> None:
        """Wait until a metric without labels has this value."""
        self.wait_for(lambda: self.metric(name) == value, f"{name} {value:g}")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.process.pid, number)

    def terminate(self) -> int:
        """Send SIGTERM; returns the exit status once the service has drained."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL if the process still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def resident_bytes(self) -> int:
        """The process's memory in RAM."""
        output = subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], capture_output=True, check=True)
        return int(output.stdout) * 1024


def start(
    module: str,
    *options: str,
    log: Path,
    http_port: int | None = None,
    grpc_port: int | None = None,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Service:
    """Start `python -m module` with the options, on free ports where none are given; it isn't waited for.

    within: the command that starts it, whose last words it is.
    """
    http_port, grpc_port, admin_port = http_port or free_port(), grpc_port or free_port(), free_port()
    ports = [f"--http_port={http_port}", f"--grpc_port={grpc_port}", f"--admin_port={admin_port}"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TABSERVE_")}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*within, sys.executable, "-P", "-m", module, "--host=127.0.0.1", *ports, *options],
            cwd=ROOT,
            env={**ours, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return Service(process, http_port, grpc_port, admin_port, log)


@contextmanager
def running(
    module: str,
    *options: str,
    log: Path,
    http_port: int | None = None,
    grpc_port: int | None = None,
    within: Sequence[str] = (),
) -> Generator[Service]:
    """A ready service, which is ended when the block is left."""
    service = start(module, *options, log=log, http_port=http_port, grpc_port=grpc_port, within=within)
    try:
        service.wait_ready()
        yield service
    finally:
        service.kill()
