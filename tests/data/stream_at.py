"""`tabserve stream` in a process whose client kills it, or holds it, at a chosen call; no code of tabserve is changed.

python -m tests.data.stream_at POINT NUMBER (kill | FILE) ARGUMENTS…
POINT: before the offsets are sent, before the commit, or after it. NUMBER: at which of these calls.
FILE: is made when the call is reached, which then waits until the file is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka

POINTS = ("offsets", "commit", "committed")
POLL_SECONDS = 0.02


def at(point: str, number: int, act: Callable[[], None]) -> type[confluent_kafka.Producer]:
    """A producer that acts at a call."""

    class Producer(confluent_kafka.Producer):
        _count = 0

        def _reach(self, reached: str) -> None:
            if reached == point:
                self._count += 1
                if self._count == number:
                    act()

        def send_offsets_to_transaction(self, *given: Any) -> None:
            self._reach("offsets")
            super().send_offsets_to_transaction(*given)

        def commit_transaction(self, *given: Any) -> None:
            self._reach("commit")
            super().commit_transaction(*given)
            self._reach("committed")

    return Producer


def kill() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def hold(file: Path) -> None:
    """Wait until a file that is made here is gone."""
    file.touch()
    while file.exists():
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    point, number, what, *arguments = sys.argv[1:]
    confluent_kafka.Producer = at(point, int(number), kill if what == "kill" else lambda: hold(Path(what)))  # type: ignore[misc]
    from tabserve.cli import main

    main(arguments)
