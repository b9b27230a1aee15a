"""The decision log of a service: requests put entries, and one thread writes them to files, or to Kafka."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa

from tabserve.arrays import Array
from tabserve.decision_log.buffer import Buffer, Kept
from tabserve.decision_log.entry import Entry
from tabserve.decision_log.files import MOST_BYTES, Folder
from tabserve.decision_log.options import Options
from tabserve.decision_log.outputs import Output, Outputs
from tabserve.decision_log.sampling import Sampling
from tabserve.inference.logs import tell
from tabserve.inference.metrics import Counts, Gauge, Histogram, Metrics

TICK_SECONDS = 1.0
"""How long entries wait at most before the thread encodes them; a thread that woke for each would cost more."""
CHUNK_ROWS = 1000
"""How many records are encoded at a time, because most of the work is per chunk; then requests have their turn."""
SWITCH_SECONDS = 0.0001
"""How long a request waits for Python while records are encoded; by default it is 5 ms, longer than most requests."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 5.0
"""How long to wait after a write that failed, at first and at most."""
SECONDS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 300, 600)

Encode = Callable[[Sequence[Entry], Sequence[Array]], pa.Table]
"""Turns entries, each with the weights of its rows, into a table of the records whose weight is not 0."""
_UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError)

logger = logging.getLogger(__name__)


class DecisionLog:
    """Takes entries at once, and writes their records later, or counts why it does not."""

    def __init__(self, outputs: Outputs, encode: Encode, options: Options, metrics: Metrics) -> None:
        self._options = options
        self._sampling = Sampling(options.sample, options.always)
        self._buffer = Buffer(options.buffer_rows, options.buffer_bytes)
        self._seconds = Histogram(
            "tabserve_log_seconds", "From a decision until its record is on disk or in the store", SECONDS
        )
        metrics.add(
            Counts(
                "tabserve_log_records", "Records of decisions by what became of them", "result", lambda: self.counts
            ),
            Gauge("tabserve_log_buffer_rows", "Records that are yet to be written", lambda: self._buffer.rows),
            self._seconds,
        )
        work = _Writing(self._buffer, outputs, encode, options, self._seconds).run
        self._thread = threading.Thread(target=work, name="decision-log", daemon=True)

    @property
    def counts(self) -> Mapping[str, int]:
        """Records by what became of them: `written`, `sampled`, `dropped` or `failed`."""
        return self._buffer.counts

    def start(self) -> None:
        """Start the thread that writes, and let other threads interrupt it soon."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Take the records of one answered request; never waits, and never fails."""
        weights = self._sampling.weights(entry)
        rows = len(entry) if weights is None else int(np.count_nonzero(weights))
        self._buffer.put(Kept(entry, weights, rows, entry.nbytes if rows else 0, time.monotonic()))

    def close(self, seconds: float) -> bool:
        """Write what there is; whatever is not written after this many seconds is dropped.

        Returns whether the thread has ended. It has not where the sink hangs: then the process must not wait for it.
        """
        self._buffer.close()
        self._thread.join(seconds)
        self._buffer.give_up()
        counts = self.counts
        told = ", ".join(f"{rows} {result}" for result, rows in counts.items())
        tell(logger, logging.INFO, "decision_log_closed", f"decision log closed: {told}", **counts)
        return not self._thread.is_alive()


class _Writing:
    """The thread's work: entries into outputs, and these to where they are durable."""

    def __init__(self, buffer: Buffer, outputs: Outputs, encode: Encode, options: Options, seconds: Histogram) -> None:
        self._buffer, self._outputs, self._encode, self._options = buffer, outputs, encode, options
        self._seconds = seconds
        self._output: Output | None = None
        self._failing = False

    def run(self) -> None:
        """Write until the buffer closes, and then what is left."""
        self._outputs.open()
        closing = False
        while not closing and not self._buffer.closed:
            self._buffer.wait(TICK_SECONDS)
            closing = self._buffer.closing
            while taken := self._buffer.take(min(CHUNK_ROWS, self._options.file_rows)):
                for folder, group in groupby(taken, lambda kept: Folder.of(kept.entry)):
                    self._add(folder, list(group))
                time.sleep(0)  # requests have their turn
            if self._output is not None and (closing or self._is_due(self._output)):
                self._finish(self._output)

    def _add(self, folder: Folder, taken: Sequence[Kept]) -> None:
        rows = sum(kept.rows for kept in taken)
        if self._output is not None and self._output.folder != folder:
            self._finish(self._output)
        output = self._output = self._output or self._outputs.begin(folder, taken[0].at)
        try:
            table = self._encode([kept.entry for kept in taken], list(map(_weights, taken)))
        except _UNFIT as error:
            self._unfit(rows, error)
            return
        times = np.repeat([kept.at for kept in taken], [kept.rows for kept in taken])
        try:
            output.add(table, times.tolist())
        except _UNFIT as error:
            self._unfit(output.rows, error)
            self._output = None
            return
        if self._is_due(output):
            self._finish(output)

    def _is_due(self, output: Output) -> bool:
        old = self._outputs.at_once or time.monotonic() - output.began >= self._options.file_seconds
        return old or output.rows >= self._options.file_rows or output.nbytes >= MOST_BYTES

    def _finish(self, output: Output) -> None:
        """Store an output, and count its records."""
        self._output = None
        if not output.rows:
            return
        try:
            output.end()
        except _UNFIT as error:
            self._unfit(output.rows, error)
            return
        self._store(output)
        self._buffer.settle("written", output.stored)
        self._buffer.settle("failed", output.rows - output.stored)
        self._seconds.observe_all(time.monotonic() - np.array(output.times[: output.stored]))

    def _store(self, output: Output) -> None:
        """Store an output, if need be by several attempts, while there is room for what comes."""
        pause = FIRST_PAUSE_SECONDS
        while not self._buffer.closed:
            try:
                output.store()
            except OSError as error:
                self._tell(error)
            else:
                self._tell(None)
                return
            if not self._buffer.has_room():
                break
            self._buffer.pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        output.abandon()

    def _tell(self, error: OSError | None) -> None:
        """Log once that the sink takes nothing, and once that it does again."""
        if error is not None and not self._failing:
            message = f"cannot write decision records, and tries again: {error}"
            tell(logger, logging.ERROR, "decision_log_failing", message)
        if error is None and self._failing:
            tell(logger, logging.INFO, "decision_log_works", "decision records are written again")
        self._failing = error is not None

    def _unfit(self, rows: int, error: Exception) -> None:
        """Count records that have no form in the file; the error's words may hold some of them."""
        kind = type(error).__name__
        message = f"{rows} decision records have no form in a file: {kind}"
        tell(logger, logging.ERROR, "decision_log_unfit", message, rows=rows, exception=kind)
        self._buffer.settle("failed", rows)


def _weights(kept: Kept) -> Array:
    return np.ones(len(kept.entry)) if kept.weights is None else kept.weights
