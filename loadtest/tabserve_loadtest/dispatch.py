"""Give arrivals to free users at their intended time, whether or not earlier ones are answered."""

from __future__ import annotations

import time
from typing import NamedTuple

import gevent
import gevent.event
import gevent.hub

from tabserve_loadtest.alarm import Alarm
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.schedule import Seconds


class Arrival(NamedTuple):
    """A request to send: its number in the run, its intended start, and the start of the run [monotonic ns]."""

    number: int
    intended: int
    origin: int


class Dispatch:
    """Gives the arrivals of each phase to the users of this process.

    Free users wait on a stack, so that the last one to finish is next. So there are as many connections in use as
    requests in flight, not as users. The clock runs in gevent's hub and switches to the user directly.
    """

    def __init__(self) -> None:
        self._free: list[gevent.hub.Waiter] = []
        self._alarm = Alarm()
        self._watcher = gevent.get_hub().loop.io(self._alarm.fileno(), 1)
        self._watcher.start(self._due)
        self._times: list[int] = []
        self._numbers: list[int] = []
        self._next = 0
        self._in_flight = 0
        self._origin = 0
        self._closed_until = 0
        self._closed_number = 0
        self._idle = gevent.event.Event()
        self.recording = Recording()

    def open(self, offsets: Seconds, numbers: range, origin: int, recording: Recording) -> None:
        """Start an open loop: arrivals at these offsets [s] from `origin`, on the monotonic clock [ns]."""
        self._begin(origin, recording)
        self._times = (origin + (offsets * 1e9).astype("int64")).tolist()
        self._numbers = list(numbers)
        self._next = 0
        self._set()

    def close_loop(self, users: int, seconds: float, recording: Recording) -> None:
        """Start a closed loop, in which users send their next request when the last is answered."""
        now = time.monotonic_ns()
        self._begin(now, recording)
        self._times, self._next = [], 0
        self._closed_until, self._closed_number = now + int(seconds * 1e9), 0
        self._idle.clear()
        for waiter in [self._free.pop() for _ in range(min(users, len(self._free)))]:
            self._in_flight += 1
            gevent.get_hub().loop.run_callback(waiter.switch, self._following())

    def _begin(self, origin: int, recording: Recording) -> None:
        self.recording, self._origin = recording, origin
        self._closed_until = 0

    def take(self) -> Arrival:
        """Wait for a user's next arrival, and return it."""
        if time.monotonic_ns() < self._closed_until:
            self._in_flight += 1
            return self._following()
        if not self._in_flight and self._next >= len(self._times):
            self._idle.set()
        waiter = gevent.hub.Waiter()
        self._free.append(waiter)
        arrival: Arrival = waiter.get()
        return arrival

    def done(self) -> None:
        """Note that an arrival was answered or abandoned; its user will take the next one."""
        self._in_flight -= 1

    def wait(self, seconds: float) -> bool:
        """Wait until every arrival is answered; False if some are not in the given time."""
        return bool(self._idle.wait(seconds))

    @property
    def in_flight(self) -> int:
        """The number of requests sent and not yet answered."""
        return self._in_flight

    def _following(self) -> Arrival:
        self._closed_number += 1
        return Arrival(self._closed_number, time.monotonic_ns(), self._origin)

    def _set(self) -> None:
        if self._next < len(self._times):
            self._idle.clear()
            self._alarm.set(self._times[self._next])
        elif not self._in_flight:
            self._idle.set()

    def _due(self) -> None:
        """Switch to a user for each arrival that is due, then set the alarm for the next; runs in the hub."""
        self._alarm.clear()
        while self._next < len(self._times) and self._times[self._next] <= time.monotonic_ns():
            arrival = Arrival(self._numbers[self._next], self._times[self._next], self._origin)
            self._next += 1
            if self._free:
                self._in_flight += 1
                self._free.pop().switch(arrival)
            else:
                self.recording.drop((arrival.intended - arrival.origin) // 1_000_000_000)
        self._set()
