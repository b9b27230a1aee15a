"""Show how far a run is, how fast, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

LINE_SECONDS = 10.0
_TERMINAL_SECONDS = 0.2


class Progress:
    """Writes to a stream: on a terminal one line that changes, elsewhere a line every ten seconds.

    noun: what is counted, such as `records`. clock: gives seconds.
    """

    def __init__(self, noun: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._noun, self._stream, self._clock = noun, stream or sys.stderr, clock
        self._terminal = self._stream.isatty()
        self._pause = _TERMINAL_SECONDS if self._terminal else LINE_SECONDS
        self._started = self._told = clock()
        self._width = 0
        self.count = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            self._stream.write("\n")

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """How many per second, since the start."""
        return self.count / max(self.seconds, 1e-9)

    def report(self, more: int, share: float | None) -> None:
        """Count more of them, and write if it is time. share: the part of the run that is done, None if unknown."""
        self.count += more
        if self._clock() - self._told < self._pause:
            return
        self._told = self._clock()
        if self._terminal:
            text = self._text(share)
            self._stream.write(f"\r{text:{self._width}}")
            self._width = max(self._width, len(text))
        else:
            self._stream.write(f"{self._text(share)}\n")
        self._stream.flush()

    def _text(self, share: float | None) -> str:
        text = f"{self.count:,} {self._noun}, {self.rate:,.0f} per second"
        if not share:
            return text
        left = self.seconds * (1 - share) / share
        return f"{share:4.0%}  {text}, {int(left // 60)}:{int(left % 60):02} left"
