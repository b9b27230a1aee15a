"""Run both services of a bundle as local processes, from start to stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from tabserve.bundle import BundleError
from tabserve.bundle.manifest import MANIFEST
from tabserve.client import Client
from tabserve.forwarder import Forwarder

HOST = "127.0.0.1"
READY_SECONDS = 120.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
LOG_SECONDS = 1.0
"""After how long a file of the decision log ends, so that one can look at what was just decided."""
BROKEN_SECONDS = 1.0
"""How long to wait before a bundle that was not whole is read again."""


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
        with Client(self.url) as client:
            while not client.ready():
                if name := self.ended():
                    status = self._processes[name].wait()
                    raise UpError(f"the {name} ended with status {status}; its last lines are above")
                if time.monotonic() > deadline:
                    raise UpError(f"not ready after {READY_SECONDS:.0f} s; the services' lines are above")
                time.sleep(POLL_SECONDS)

    def drain(self) -> None:
        """Have the transformer, and then the predictor, answer what is asked on its open connections, and end."""
        for name in ("transformer", "predictor"):
            self._processes[name].terminate()
            with suppress(subprocess.TimeoutExpired):
                self._processes[name].wait(STOP_SECONDS)

    def wait_until_ended(self) -> None:
        """Wait until a service ends by itself. Raises UpError then."""
        while True:
            self.verify_running()
            time.sleep(POLL_SECONDS)

    def verify_running(self) -> None:
        """Raise UpError if a service has ended."""
        if name := self.ended():
            raise UpError(f"the {name} ended with status {self._processes[name].wait()}")


def choose_ports() -> Ports:
    """Ports from 8080 on, with a free one in place of each that is taken."""
    with ExitStack() as stack:  # all are held until all are chosen, so that none is chosen twice
        http, grpc, admin, *of_predictor = (_listen(stack, port) for port in range(8080, 8086))
        return Ports(http, grpc, of_predictor[0], of_predictor[1], admin, of_predictor[2])


def _free_ports() -> Ports:
    """Ports that nothing listens on, without those of admin."""
    with ExitStack() as stack:
        return Ports(*(_listen(stack, 0) for _ in range(4)))


def _listen(stack: ExitStack, port: int) -> int:
    try:
        listener = stack.enter_context(socket.create_server((HOST, port)))
    except OSError:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
    chosen: int = listener.getsockname()[1]
    return chosen


class Given(msgspec.Struct, frozen=True):
    """What the services are started with.

    options: of both, such as `--allow_joblib=true`. log: where to log decisions, empty for nowhere. page: whether
    browsers are shown a page.
    """

    options: Sequence[str] = ()
    log: str = ""
    page: bool = False

    def of(self, digest: str) -> Given:
        """The same for this bundle alone."""
        return msgspec.structs.replace(self, options=[*self.options, f"--digest={digest}"])


@contextmanager
def services(
    bundle: str, ports: Ports, options: Sequence[str] = (), log: str = "", *, page: bool = False
) -> Generator[Services, None, None]:
    """Start both services of a bundle, print their lines with their names in front, and stop them at the end.

    options, log, page: as of Given.
    """
    common = [f"--model_dir={bundle}", f"--host={HOST}", *options]
    logging = [f"--decision_log={log}", f"--decision_log_file_seconds={LOG_SECONDS}"] if log else []
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
            f"--page={str(page).lower()}",
            *logging,
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
def serving(
    bundle: Path, ports: Ports, given: Given, load: Callable[[], str] | None, report: Callable[[str], None]
) -> Generator[Callable[[], None], None, None]:
    """Serve a bundle on these ports until the block ends, and give what waits until a service ends by itself.

    load: given to watch the folder, as for Watched. Raises UpError, BundleError, and OSError if a port is taken.
    """
    if load is None:
        with services(str(bundle), ports, given.options, given.log, page=given.page) as running:
            running.wait_until_ready()
            yield running.wait_until_ended
    else:
        watched = Watched(bundle, given, load, report)
        with watched.serving(ports):
            yield watched.watch


class Watched:
    """A bundle's services on fixed ports, which are replaced when another bundle is saved in its place.

    load: the digest of the bundle that is in the folder now; raises BundleError if it is none. report: told, in words,
    what was picked up or not.
    """

    def __init__(self, bundle: Path, given: Given, load: Callable[[], str], report: Callable[[str], None]) -> None:
        self._bundle, self._given, self._load, self._report = bundle, given, load, report
        self._stack = ExitStack()
        self._forwarders: dict[str, Forwarder] = {}
        self._digest: str
        self._running: Services
        self._end: Callable[[], None]
        self._seen, self._told = self._stamp(), ""

    @contextmanager
    def serving(self, ports: Ports) -> Generator[None, None, None]:
        """Start the services, wait until they are ready, and listen on the ports. Raises UpError and BundleError."""
        with self._stack:
            self._start(self._load())
            for name in ("http", "grpc", "predictor_http", "predictor_grpc"):
                forwarder = Forwarder(HOST, getattr(ports, name), getattr(self._running.ports, name))
                self._forwarders[name] = self._stack.enter_context(forwarder)
            yield

    def watch(self) -> None:
        """Replace the services whenever another bundle is there. Raises UpError if one ends by itself."""
        while True:
            self._running.verify_running()
            time.sleep(BROKEN_SECONDS if self._told else POLL_SECONDS)
            stamp = self._stamp()
            if stamp not in (None, self._seen) and self._picked_up():
                self._seen = stamp

    def _picked_up(self) -> bool:
        """Whether there is nothing more to do about the folder's bundle; why it is not served is told once."""
        try:
            digest = self._load()
        except BundleError as error:  # perhaps it is still being written
            if str(error) != self._told:
                self._told = str(error)
                self._report(f"Not picked up: {error}")
            return False
        self._told = ""
        try:
            if digest != self._digest:
                self._replace(digest)
        except UpError as error:
            self._report(f"Not picked up: {error}")
        return True

    def _replace(self, digest: str) -> None:
        """Forward new connections to other services with this bundle, and then end the former ones."""
        former, end = self._running, self._end
        self._start(digest)
        for name, forwarder in self._forwarders.items():
            forwarder.target = getattr(self._running.ports, name)
        self._report(f"Picked up {digest}.")
        former.drain()
        end()

    def _start(self, digest: str) -> None:
        """Start services with this bundle, and wait until they are ready."""
        with ExitStack() as stack:
            given = self._given.of(digest)
            made = services(str(self._bundle), _free_ports(), given.options, given.log, page=given.page)
            running = stack.enter_context(made)
            running.wait_until_ready()
            end = stack.pop_all().close
        self._stack.callback(end)
        self._digest, self._running, self._end = digest, running, end

    def _stamp(self) -> tuple[int, int, int] | None:
        """What changes with the bundle's manifest, None while there is none."""
        try:
            found = (self._bundle / MANIFEST).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


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
