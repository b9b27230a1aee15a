"""Run both services of a bundle as local processes, from start to stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO

import msgspec

from tabserve.client import Client

HOST = "127.0.0.1"
READY_SECONDS = 120.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1


class UpError(Exception):
    """A service did not become ready, or ended by itself; the message says which."""


class Ports(msgspec.Struct, frozen=True):
    """Where the services listen on 127.0.0.1; without an admin port a service has its metrics beside REST."""

    http: int
    grpc: int
    predictor_http: int
    predictor_grpc: int
    admin: int = 0
    predictor_admin: int = 0


class Services:
    """A running predictor and transformer."""

    def __init__(self, ports: Ports, processes: dict[str, subprocess.Popen[str]]) -> None:
        self.ports = ports
        self.url = f"http://{HOST}:{ports.http}"
        self._processes = processes

    def ended(self) -> str | None:
        """The name of a service that has ended."""
        return next((name for name, process in self._processes.items() if process.poll() is not None), None)

    def wait_until_ready(self) -> None:
        """Wait until the transformer answers that it is ready. Raises UpError."""
        deadline = time.monotonic() + READY_SECONDS
        client = Client(self.url)
        while not client.ready():
            if name := self.ended():
                raise UpError(f"the {name} ended with status {self._processes[name].wait()}; its last lines are above")
            if time.monotonic() > deadline:
                raise UpError(f"not ready after {READY_SECONDS:.0f} s; the services' lines are above")
            time.sleep(POLL_SECONDS)

    def wait_until_ended(self) -> None:
        """Wait until a service ends by itself. Raises UpError then."""
        while (name := self.ended()) is None:
            time.sleep(POLL_SECONDS)
        raise UpError(f"the {name} ended with status {self._processes[name].wait()}")


def choose_ports() -> Ports:
    """Ports from 8080 on, with a free one in place of each that is taken."""
    with ExitStack() as stack:  # all are held until all are chosen, so that none is chosen twice
        http, grpc, admin, *of_predictor = (_listen(stack, port) for port in range(8080, 8086))
        return Ports(http, grpc, of_predictor[0], of_predictor[1], admin, of_predictor[2])


def _listen(stack: ExitStack, port: int) -> int:
    try:
        listener = stack.enter_context(socket.create_server((HOST, port)))
    except OSError:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
    chosen: int = listener.getsockname()[1]
    return chosen


@contextmanager
def services(bundle: str, ports: Ports, options: Sequence[str] = ()) -> Generator[Services, None, None]:
    """Start both services of a bundle, print their lines with their names in front, and stop them at the end.

    options: given to both, such as `--allow_joblib=true`.
    """
    common = [f"--model_dir={bundle}", f"--host={HOST}", *options]
    commands = {
        "predictor": [
            f"--http_port={ports.predictor_http}",
            f"--grpc_port={ports.predictor_grpc}",
            f"--admin_port={ports.predictor_admin}",
        ],
        "transformer": [
            f"--http_port={ports.http}",
            f"--grpc_port={ports.grpc}",
            f"--admin_port={ports.admin}",
            f"--predictor_host={HOST}:{ports.predictor_http}",
        ],
    }
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                _process(name, [sys.executable, "-P", "-m", f"tabserve_{name}", *common, *arguments])
            )
            for name, arguments in commands.items()
        }
        yield Services(ports, processes)


@contextmanager
def _process(name: str, command: Sequence[str]) -> Generator[subprocess.Popen[str], None, None]:
    # In its own session: Ctrl-C reaches only us, and we stop the services in order.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = threading.Thread(target=_forward, args=(name, process.stdout), daemon=True)
    lines.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        lines.join(STOP_SECONDS)
        process.stdout.close()


def _forward(name: str, lines: IO[str]) -> None:
    for line in lines:
        print(f"{name:11} | {line}", end="", file=sys.stderr, flush=True)
