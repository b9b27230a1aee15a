"""Run peers as processes on the server's core: start them, wait for their first answer, end them by id."""

from __future__ import annotations

import os
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import grpc
import psutil

from benchmarks import cache, environments, models, pool
from benchmarks.payloads import Payloads
from benchmarks.roster import Peer

SERVER_CORE, GENERATOR_CORE = 0, 1
START_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.01
INFER = "/inference.GRPCInferenceService/ModelInfer"

# Below the ports that the kernel uses for outgoing connections.
_PORTS = range(11000, 30000)
_OWN = (environments.OURS, environments.WITHOUT_TRACING)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class PeerError(Exception):
    """A peer did not start, ended by itself or answered wrongly."""


@dataclass(frozen=True)
class Server:
    """A started peer."""

    processes: tuple[psutil.Popen, ...]
    http_port: int
    grpc_port: int
    log: Path
    start_seconds: float
    authority: str = ""

    def target(self, asked: Payloads) -> str:
        """The host and port for these payloads."""
        return f"127.0.0.1:{self.grpc_port if asked.protocol == 'grpc' else self.http_port}"

    def connection(self) -> HTTPConnection:
        """A connection to REST."""
        if not self.authority:
            return HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        trusted = ssl.create_default_context(cafile=self.authority)
        return HTTPSConnection("127.0.0.1", self.http_port, timeout=10, context=trusted)

    def ids(self) -> list[int]:
        """The ids of the server's processes, including workers."""
        return [process.pid for process in self._all()]

    def resident_bytes(self) -> int:
        """The memory in RAM of all the server's processes."""
        return sum(process.memory_info().rss for process in self._all())

    def descriptors(self) -> int:
        """The open files and sockets of all the server's processes."""
        return sum(process.num_fds() for process in self._all())

    def _all(self) -> list[psutil.Process]:
        return [each for process in self.processes for each in (process, *process.children(recursive=True))]


@contextmanager
def running(peer: Peer, asked: Payloads, answer: Path, log: Path) -> Generator[Server]:
    """Start the peer, wait for its first answer, and end it when the block is left.

    answer: a file with the bytes that a no-op server repeats. Raises PeerError.
    """
    names = ("http", "grpc", "admin", "inner_http", "inner_grpc", "inner_admin")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    words = {
        "python": str(environments.python(peer.environment)),
        "peers": str(environments.PEERS),
        "bundle": str(models.bundle(asked.model.name, peer.reasons)) if peer.environment in _OWN else "",
        "native": str(asked.model.native),
        "answer": str(answer),
        **{name: str(port) for name, port in ports.items()},
    }
    started = time.monotonic()
    processes: list[psutil.Popen] = []
    try:
        for command in reversed(peer.commands):
            processes.insert(0, _start([word.format_map(words) for word in command], peer.variables, log))
        server = Server(tuple(processes), ports["http"], ports["grpc"], log, 0.0, peer.authority)
        _wait(server, asked)
        yield replace(server, start_seconds=time.monotonic() - started)
    finally:
        for process in processes:
            _stop(process)


def _start(command: list[str], variables: Mapping[str, str], log: Path) -> psutil.Popen:
    with log.open("ab") as file:
        return psutil.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            cwd=cache.ROOT,
            env={**os.environ, **_ONE_THREAD, **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def _stop(process: psutil.Popen) -> None:
    workers: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        workers = process.children(recursive=True)
        process.terminate()
        process.wait(STOP_SECONDS)
    for left in (process, *workers):
        with suppress(psutil.NoSuchProcess):
            left.kill()
    process.wait(STOP_SECONDS)


def _wait(server: Server, asked: Payloads) -> None:
    request = pool.first(asked.file)
    ask = _ask_grpc if asked.protocol == "grpc" else _ask_http
    end = time.monotonic() + START_SECONDS
    while (problem := ask(server, asked, request)) is not None:
        for process in server.processes:
            if process.poll() is not None:
                raise PeerError(f"ended with status {process.returncode}: {tail(server.log)}")
        if time.monotonic() > end:
            raise PeerError(f"no answer within {START_SECONDS:g} s ({problem}): {tail(server.log)}")
        time.sleep(POLL_SECONDS)


def _ask_http(server: Server, asked: Payloads, request: bytes) -> str | None:
    connection = server.connection()
    try:
        connection.request("POST", asked.path, request, asked.headers)
        response = connection.getresponse()
        body = response.read()
        return None if response.status == 200 else f"{response.status} {body[:300]!r}"
    except (OSError, HTTPException) as error:
        return repr(error)
    finally:
        connection.close()


def _ask_grpc(server: Server, asked: Payloads, request: bytes) -> str | None:
    with grpc.insecure_channel(server.target(asked)) as channel:
        call: Callable[..., bytes] = channel.unary_unary(INFER)
        try:
            call(request, timeout=5)
        except grpc.RpcError as error:
            return f"{error}"[:300]
    return None


def tail(log: Path) -> str:
    """The last lines of a log, for an error's text."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-4:])[-600:]


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, 200):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise PeerError(f"fewer than {count} free ports")
