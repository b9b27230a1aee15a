"""A kernel timer in nanoseconds (timerfd), because an event loop's own timers round to whole milliseconds."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_MONOTONIC = 1
_ABSOLUTE = 1


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Alarm:
    """A file descriptor that becomes readable at a set time. Source: timerfd_create(2); Python has it from 3.13 on."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        """The file descriptor."""
        descriptor: int = self._descriptor
        return descriptor

    def set(self, at: int) -> None:
        """Become readable at a time of `time.monotonic_ns`, or at once if it has passed."""
        seconds, nanoseconds = divmod(max(at, 1), 1_000_000_000)
        setting = _Setting(_Time(0, 0), _Time(seconds, nanoseconds))
        if self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Stop being readable, until the alarm is set again."""
        with suppress(BlockingIOError):
            os.read(self._descriptor, 8)

    def close(self) -> None:
        """Close the file descriptor."""
        os.close(self._descriptor)
