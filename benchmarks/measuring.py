"""Carries out a plan: every peer in turn, freshly started, round after round."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks import load, models, pool, servers
from benchmarks.load import Load
from benchmarks.payloads import Payloads, payloads
from benchmarks.plan import TURN_SECONDS, Plan, Step, Visit
from benchmarks.results import AGED, CLOSED, FRESH, Cell, Failure, Results, Sample, Start
from benchmarks.roster import Peer
from benchmarks.servers import PeerError, Server

CAPACITY_CONNECTIONS = 32
"""A server's capacity is its throughput over so many connections."""

Report = Callable[[str], None]


class Session:
    """One run of a plan; what it finds is in `results`."""

    def __init__(self, plan: Plan, results: Results, folder: Path, report: Report) -> None:
        """folder: for answers and logs of this run. report: is told each figure as it comes."""
        self.results = results
        self._plan = plan
        self._folder = folder
        self._report = report
        self._differences: dict[Path, float] = {}

    def run(self) -> Iterator[None]:
        """All rounds, a step of the iterator for each visit.

        Each begins with another peer, but the first with tabserve, whose bytes the no-op repeats.
        """
        visits = self._plan.visits
        for number in range(self._plan.rounds):
            first = number % len(visits)
            for visit in (*visits[first:], *visits[:first]):
                self._attempt(visit, number)
                yield

    def _attempt(self, visit: Visit, number: int) -> None:
        self._report(f"round {number + 1} of {self._plan.rounds}: {visit.peer.title}, {visit.model}")
        try:
            self._visit(visit, number)
        except (PeerError, OSError, psutil.Error, subprocess.SubprocessError) as error:
            self.results.failures.append(Failure(visit.peer.name, visit.model, number, str(error)))
            self._report(f"  FAILED: {error}")

    def _visit(self, visit: Visit, number: int) -> None:
        model = models.trained(visit.model)
        first = payloads(model, visit.steps[0].rows, visit.steps[0].encoding)
        answer = self._folder / "answer"
        if visit.peer.answers == "same":
            answer.write_bytes(pool.first(self._answers_file("tabserve", first)))
        with servers.running(visit.peer, first, answer, self._folder / f"{visit.peer.name}.log") as server:
            difference = self._steps(server, visit, number)
            if visit.turns:
                log = self._folder / f"{visit.peer.name}-fresh.log"
                with servers.running(visit.peer, first, answer, log) as fresh:
                    self._in_turns(server, fresh, visit, number)
            start = Start(
                visit.peer.name, visit.model, number, server.start_seconds, server.resident_bytes(), difference
            )
        self.results.starts.append(start)
        self._report(f"  start {start.seconds:.2f} s, {start.resident / 2**20:.0f} MiB, differs by {difference:.1g}")

    def _steps(self, server: Server, visit: Visit, number: int) -> float:
        """Measure every step; the largest difference from the library's answers."""
        model = models.trained(visit.model)
        differences, capacity = [], 0.0
        for step in visit.steps:
            asked = payloads(model, step.rows, step.encoding)
            differences.append(self._collect(server, visit.peer, asked))
            sample = self._measure(server, visit.peer, asked, step, capacity, number)
            if step.connections == CAPACITY_CONNECTIONS and step.load == CLOSED:
                capacity = sample.measured.per_second
        return max(differences)

    def _in_turns(self, aged: Server, fresh: Server, visit: Visit, number: int) -> None:
        """Measure the last step again on both, at the rate it had."""
        last = self.results.samples[-1]
        step = replace(visit.steps[-1], seconds=TURN_SECONDS)
        asked = payloads(models.trained(visit.model), step.rows, step.encoding)
        sides = [
            (replace(visit.peer, name=visit.peer.name + age), server) for age, server in ((AGED, aged), (FRESH, fresh))
        ]
        for peer, server in sides:
            self._collect(server, peer, asked)
        for _ in range(visit.turns):
            for peer, server in sides:
                self._measure(server, peer, asked, step, last.capacity, number)

    def _collect(self, server: Server, peer: Peer, asked: Payloads) -> float:
        """Once a run for each peer and pool: a fresh start must give the same bytes again."""
        file = self._answers_file(peer.name, asked)
        if file not in self._differences:
            self._differences[file] = load.collect(server, peer, asked, file)
        return self._differences[file]

    def _measure(self, server: Server, peer: Peer, asked: Payloads, step: Step, capacity: float, number: int) -> Sample:
        wanted = Load(step.connections, step.seconds or self._plan.seconds, step.load * capacity)
        with _resident(server) as resident:
            measured = load.measure(server, asked, self._answers_file(peer.name, asked), wanted)
        cell = Cell(peer.name, asked.model.name, step.rows, step.encoding, step.connections, step.load)
        sample = Sample(cell, number, measured, resident, capacity, server.descriptors())
        self.results.samples.append(sample)
        self._report(_line(sample))
        return sample

    def _answers_file(self, peer: str, asked: Payloads) -> Path:
        return self._folder / f"{peer}-{asked.model.name}-{asked.rows}-{asked.encoding}"


@contextmanager
def _resident(server: Server) -> Generator[list[int]]:
    """Bytes in RAM, noted every second while the block runs."""
    noted: list[int] = []
    over = threading.Event()

    def note() -> None:
        while not over.wait(1.0):
            noted.append(server.resident_bytes())

    thread = threading.Thread(target=note)
    thread.start()
    try:
        yield noted
    finally:
        over.set()
        thread.join()


def _line(sample: Sample) -> str:
    cell, measured = sample.cell, sample.measured
    open_loop = f", open loop at {cell.load:g} times capacity" if cell.load else ""
    refused = f", {measured.refused / measured.seconds:,.0f} refused/s" if measured.refused else ""
    return (
        f"  {cell.rows:3} rows {cell.encoding}, {cell.connections:4} connections{open_loop}: "
        f"{measured.per_second:8,.0f}/s{refused}, p50 {measured.p50 * 1e3:.3f} ms, p99 {measured.p99 * 1e3:.3f} ms, "
        f"{measured.server_seconds * 1e6:.0f} µs CPU, others used {measured.foreign:.0%}"
    )
