"""Carry out a plan: start the peers of a group afresh and measure them in turn, round after round."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import psutil

from benchmarks import load, models, pool, servers
from benchmarks.load import MOST_TRIES, Load
from benchmarks.payloads import Payloads, payloads
from benchmarks.plan import Plan, Step, Visit, in_turn
from benchmarks.results import AGED, CLOSED, FRESH, Cell, Failure, Results, Sample, Start, least_disturbed
from benchmarks.roster import Peer
from benchmarks.servers import PeerError, Server

CAPACITY_CONNECTIONS = 32
"""The number of connections over which a server's throughput is its capacity."""

Report = Callable[[str], None]


@dataclass
class _Running:
    """A visit whose peer is running, with its last measured capacity."""

    visit: Visit
    server: Server
    differences: list[float]
    capacity: float = 0.0


class Session:
    """One run of a plan; its findings are in `results`."""

    def __init__(self, plan: Plan, results: Results, folder: Path, report: Report) -> None:
        """folder: for the answers and logs of this run. report: called with each figure when it is known."""
        self.results = results
        self._plan = plan
        self._folder = folder
        self._report = report
        self._differences: dict[Path, float] = {}
        self._group = 0  # the one being measured

    def run(self) -> Iterator[None]:
        """Run all rounds, one step of the iterator per group. Every other round takes the peers in reverse order."""
        for number in range(self._plan.rounds):
            for at, group in enumerate(self._plan.groups):
                self._group = at
                self._report(f"round {number + 1} of {self._plan.rounds}: {', '.join(map(_title, group))}")
                with ExitStack() as stack:
                    self._compare(group, number, stack)
                yield

    def _compare(self, group: tuple[Visit, ...], number: int, stack: ExitStack) -> None:
        up: dict[int, _Running] = {}
        for at, visit in enumerate(group):
            with self._noting_failure(visit, number):
                up[at] = self._start(visit, stack)
        for step, sharing in in_turn(group):
            for at in sharing[:: -1 if number % 2 else 1]:
                with self._noting_failure(group[at], number):
                    if at in up:
                        running = up.pop(at)  # it is put back unless this fails
                        self._step(running, step, number)
                        up[at] = running
        for running in up.values():
            with self._noting_failure(running.visit, number):
                self._end(running, number)

    @contextmanager
    def _noting_failure(self, visit: Visit, number: int) -> Generator[None]:
        try:
            yield
        except (PeerError, OSError, psutil.Error, subprocess.SubprocessError) as error:
            self.results.failures.append(Failure(visit.peer.name, visit.model, number, str(error)))
            self._report(f"  FAILED: {_title(visit)}: {error}")

    def _start(self, visit: Visit, stack: ExitStack) -> _Running:
        first = _asked(visit, visit.steps[0])
        answer = self._folder / f"{visit.peer.name}-{first.rows}-answer"
        if visit.peer.answers == "same":
            answer.write_bytes(pool.first(self._answers_file("tabserve", first)))
        running = servers.running(visit.peer, first, answer, self._folder / f"{visit.peer.name}.log")
        server = stack.enter_context(running)
        return _Running(visit, server, [self._collect(server, visit.peer, first)])

    def _step(self, running: _Running, step: Step, number: int) -> None:
        visit, server = running.visit, running.server
        asked = _asked(visit, step)
        running.differences.append(self._collect(server, visit.peer, asked))
        closed = step.load == CLOSED
        tries = (
            self._sample(server, visit.peer, asked, step, running.capacity, number)
            for _ in range(MOST_TRIES if closed else 1)
        )
        sample = least_disturbed(tries, lambda each: each.measured)
        self._note(sample)
        if closed and step.connections == CAPACITY_CONNECTIONS:
            running.capacity = sample.measured.per_second

    def _end(self, running: _Running, number: int) -> None:
        visit, server, difference = running.visit, running.server, max(running.differences)
        if visit.beside:
            with ExitStack() as stack:
                self._side_by_side(server, self._start(visit, stack).server, visit, number)
        start = Start(visit.peer.name, visit.model, number, server.start_seconds, server.resident_bytes(), difference)
        self.results.starts.append(start)
        self._report(
            f"{_title(visit)}: start {start.seconds:.2f} s, {start.resident / 2**20:.0f} MiB, "
            f"differs by {difference:.1g}"
        )

    def _side_by_side(self, aged: Server, fresh: Server, visit: Visit, number: int) -> None:
        """Measure the last step again on both servers at the same time, each with half the load.

        They share the cores, because the machine's speed changes within seconds and must be the same for both.
        """
        capacity = self.results.samples[-1].capacity
        step = replace(visit.steps[-1], load=visit.steps[-1].load / 2)
        asked = _asked(visit, step)
        peers = [replace(visit.peer, name=visit.peer.name + age) for age in (AGED, FRESH)]
        for peer, server in zip(peers, (aged, fresh), strict=True):
            self._collect(server, peer, asked)
        for _ in range(visit.beside):
            with ThreadPoolExecutor() as both:
                taken = [
                    both.submit(self._sample, server, peer, asked, step, capacity, number)
                    for peer, server in zip(peers, (aged, fresh), strict=True)
                ]
            one, other = (each.result() for each in taken)
            self._note(msgspec.structs.replace(one, measured=load.apart(one.measured, other.measured)))
            self._note(msgspec.structs.replace(other, measured=load.apart(other.measured, one.measured)))

    def _collect(self, server: Server, peer: Peer, asked: Payloads) -> float:
        """Check a peer's answers to a pool, once per run; after a fresh start the bytes must be the same again."""
        file = self._answers_file(peer.name, asked)
        if file not in self._differences:
            self._differences[file] = load.collect(server, peer, asked, file)
        return self._differences[file]

    def _sample(self, server: Server, peer: Peer, asked: Payloads, step: Step, capacity: float, number: int) -> Sample:
        wanted = Load(step.connections, step.seconds or self._plan.seconds, step.load * capacity)
        with _resident(server) as resident:
            measured = load.measure(server, asked, self._answers_file(peer.name, asked), wanted)
        cell = Cell(peer.name, asked.model.name, step.rows, step.encoding, step.connections, step.load)
        return Sample(cell, number, measured, resident, capacity, server.descriptors(), self._group)

    def _note(self, sample: Sample) -> None:
        self.results.samples.append(sample)
        self._report(_line(sample))

    def _answers_file(self, peer: str, asked: Payloads) -> Path:
        return self._folder / f"{peer}-{asked.model.name}-{asked.rows}-{asked.encoding}"


@contextmanager
def _resident(server: Server) -> Generator[list[int]]:
    """A list of the bytes in RAM, which grows every second while the block runs."""
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


def _asked(visit: Visit, step: Step) -> Payloads:
    return payloads(models.trained(visit.model), step.rows, step.encoding)


def _title(visit: Visit) -> str:
    return f"{visit.peer.title} ({visit.model})"


def _line(sample: Sample) -> str:
    cell, measured = sample.cell, sample.measured
    open_loop = f", open loop at {cell.load:g} times capacity" if cell.load else ""
    refused = f", {measured.refused / measured.seconds:,.0f} refused/s" if measured.refused else ""
    return (
        f"  {cell.peer:18} {cell.rows:3} rows {cell.encoding}, {cell.connections:4} connections{open_loop}: "
        f"{measured.per_second:8,.0f}/s{refused}, p50 {measured.p50 * 1e3:.3f} ms, p99 {measured.p99 * 1e3:.3f} ms, "
        f"{measured.server_seconds * 1e6:.0f} µs CPU, others used {measured.foreign:.0%}"
    )
