"""Micro-batching that keeps the engine busy and never waits for a timer.

An idle engine starts with the requests that are there, and at once if the call is short and the request alone.
Requests that arrive while it works, or in the same turn of the event loop, are joined in the next turn. A request's
answer does not depend on its batch. Only requests for the same engine and outputs are joined, and only if the engine
gives every row the same answer whatever the other rows are.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import msgspec

from tabserve.arrays import Array, Features, concatenate, rows
from tabserve.engines import Engine
from tabserve.inference.deadlines import Deadlines
from tabserve.inference.errors import DeadlineExceeded
from tabserve.inference.model import Context
from tabserve.inference.tracing import Spans
from tabserve_predictor.instruments import First, Instruments

INLINE_SECONDS = 0.002
"""A call expected to need more CPU time than this runs in a thread, so that health and metrics are still answered.

It is CPU time, not wall time, because a short call takes long on a busy machine or behind the interpreter's lock.
"""

AT_ONCE_SECONDS = 0.0005
"""A lone request whose call is expected to need no more than this does not wait a turn for others to join.

Wall time stands for CPU time here, because reading CPU time needs a system call.
"""

Outputs: TypeAlias = dict[str, Array]
_Size: TypeAlias = tuple[str, tuple[str, ...], int]


class _Waiting(msgspec.Struct, eq=False):
    engine: Engine
    features: Features
    rows: int
    outputs: tuple[str, ...]
    context: Context
    answer: asyncio.Future[Outputs]
    since: float


class _Call(NamedTuple):
    result: Outputs | Exception
    started: float
    seconds: float
    cpu_seconds: float

    def value(self) -> Outputs:
        """The outputs. Raises what the engine raised."""
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Batcher:
    """Runs engines one call at a time, for requests that arrive one by one. spans: made of each, if there are any."""

    def __init__(self, max_batch_rows: int, instruments: Instruments, spans: Spans | None = None) -> None:
        self._max_batch_rows = max_batch_rows
        self._instruments, self._spans = instruments, spans
        self._queue: deque[_Waiting] = deque()
        self._deadlines = Deadlines()
        self._busy = False
        self._cpu_seconds: dict[_Size, float] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def run(self, engine: Engine, features: Features, outputs: tuple[str, ...], context: Context) -> Outputs:
        """The outputs for these rows, computed by themselves or together with other requests' rows.

        Raises DeadlineExceeded, and what the engine raises.
        """
        count, since = rows(features), time.perf_counter()
        if context.alone and not self._busy:
            size = _size(engine, outputs, count)
            if self._cpu_seconds.get(size, 1.0) <= AT_ONCE_SECONDS:
                call = _call(engine, [features], outputs, time.perf_counter)
                self._measure(size, count, call, [since], [(0, context.arm)])
                if self._spans is not None:
                    self._spans.called(context.trace, since, call.started, call.seconds, engine.name)
                return call.value()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outputs] = loop.create_future()
        self._queue.append(_Waiting(engine, features, count, outputs, context, answer, since))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._turn, loop)
        return await self._deadlines.in_time(answer, context.deadline)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make one engine call; the next turn comes after the event loop has done everything else."""
        batch = self._take()
        if not batch:
            self._busy = False
            return
        first, count = batch[0], sum(waiting.rows for waiting in batch)
        size = _size(first.engine, first.outputs, count)
        work = partial(_call, first.engine, [one.features for one in batch], first.outputs, time.thread_time)

        def finish(call: _Call) -> None:
            self._measure(size, count, call, [waiting.since for waiting in batch], _firsts(batch))
            if self._spans is not None:
                for one in batch:
                    self._spans.called(one.context.trace, one.since, call.started, call.seconds, first.engine.name)
            self._finish(loop, batch, call)

        if self._cpu_seconds.get(size, 1.0) > INLINE_SECONDS:
            loop.run_in_executor(self._thread, work).add_done_callback(lambda done: finish(done.result()))
        else:
            finish(work())

    def _take(self) -> list[_Waiting]:
        """The next batch: the first request still wanted, and those that may join it; others keep their positions."""
        batch: list[_Waiting] = []
        kept: list[_Waiting] = []
        count = 0
        while self._queue:
            waiting = self._queue.popleft()
            if not self._wanted(waiting):
                continue
            if batch and not _joins(waiting, batch[0], count, self._max_batch_rows):
                kept.append(waiting)
                continue
            batch.append(waiting)
            count += waiting.rows
            if count >= self._max_batch_rows or not waiting.engine.row_independent:
                break
        self._queue.extendleft(reversed(kept))
        return batch

    def _wanted(self, waiting: _Waiting) -> bool:
        if waiting.answer.done():  # its client went away
            return False
        if waiting.context.deadline <= time.monotonic():
            waiting.answer.set_exception(DeadlineExceeded("the deadline passed before the request was predicted"))
            return False
        return True

    def _finish(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting], call: _Call) -> None:
        at = 0
        for waiting in batch:
            until = at + waiting.rows
            if waiting.answer.done():
                pass
            elif isinstance(call.result, Exception):
                waiting.answer.set_exception(call.result)
            else:
                waiting.answer.set_result({name: array[at:until] for name, array in call.result.items()})
            at = until
        if self._queue:
            loop.call_soon(self._turn, loop)
        else:
            self._busy = False

    def _measure(self, size: _Size, count: int, call: _Call, since: Sequence[float], firsts: Sequence[First]) -> None:
        before = self._cpu_seconds.get(size, call.cpu_seconds)
        # Wall time may include time in which something else had the core.
        taken = min(call.cpu_seconds, max(2 * before, AT_ONCE_SECONDS))
        self._cpu_seconds[size] = 0.8 * before + 0.2 * taken
        self._instruments.called(size[0], count, call.seconds, [call.started - each for each in since])
        if not isinstance(call.result, Exception):
            self._instruments.predicted(call.result, firsts)


def _firsts(batch: Sequence[_Waiting]) -> list[First]:
    starts = accumulate((waiting.rows for waiting in batch[:-1]), initial=0)
    return [(at, waiting.context.arm) for at, waiting in zip(starts, batch, strict=True)]


def _call(engine: Engine, parts: Sequence[Features], outputs: tuple[str, ...], cpu_clock: Callable[[], float]) -> _Call:
    started, cpu_started = time.perf_counter(), cpu_clock()
    result: Outputs | Exception
    try:
        result = engine.run(parts[0] if len(parts) == 1 else concatenate(parts), outputs)
    except Exception as error:  # noqa: BLE001 - handed on to every request of the batch
        result = error
    return _Call(result, started, time.perf_counter() - started, cpu_clock() - cpu_started)


def _size(engine: Engine, outputs: tuple[str, ...], count: int) -> _Size:
    """What a call's time depends on: engine, outputs, and the number of rows, rounded to a power of two."""
    return engine.name, outputs, count.bit_length()


def _joins(waiting: _Waiting, first: _Waiting, count: int, limit: int) -> bool:
    return (
        waiting.engine is first.engine
        and waiting.outputs == first.outputs
        and waiting.engine.row_independent
        and count + waiting.rows <= limit
    )
