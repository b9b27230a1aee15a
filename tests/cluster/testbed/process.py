"""Run commands, and start and stop daemons by their process id."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.testbed.places import LOGS, RUN


class CommandFailed(RuntimeError):
    """A command ended with an error; the text names it and holds the end of what it printed."""


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """Run a command to its end and return what it printed to stdout.

    `env` is added to this process's environment. Raises CommandFailed on any exit status but 0.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        printed = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise CommandFailed(f"`{' '.join(map(str, command))[:300]}` ended with {done.returncode}:\n{printed}")
    return done.stdout


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log file, or a note that there is none."""
    if not log.exists():
        return f"({log} does not exist)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def started_at(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot, or None if it is gone or a zombie.

    Together with the pid it identifies a process; a pid by itself can be given to another one.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Daemon:
    """A program that runs in the background, with its pid and log in files."""

    name: str
    command: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """The file that the output goes to."""
        return LOGS / f"{self.name}.log"

    def start(self) -> None:
        """Start the daemon in its own session, unless it runs."""
        if running(self.name):
            return
        LOGS.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        (RUN / f"{self.name}.pid").write_text(f"{process.pid} {started_at(process.pid)}")


def running(name: str) -> int | None:
    """The pid of a daemon with this name that was started and still runs."""
    try:
        pid, start = (RUN / f"{name}.pid").read_text().split()
    except FileNotFoundError:
        return None
    return int(pid) if started_at(int(pid)) == start else None


def stop(name: str, seconds: float = 1) -> None:
    """End a daemon with SIGTERM, and after a while with SIGKILL."""
    if pid := running(name):
        end(pid, seconds)
    (RUN / f"{name}.pid").unlink(missing_ok=True)


def end(pid: int, seconds: float) -> None:
    """End one process with SIGTERM, then with SIGKILL if it has not ended in time."""
    start = started_at(pid)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if start is None or started_at(pid) != start:
            return
        os.kill(pid, signum)
        until = time.monotonic() + seconds
        while started_at(pid) == start and time.monotonic() < until:
            time.sleep(0.05)
