"""The measurements of a generator, in a form that merges exactly with others'."""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypeAlias

import msgspec

from tabserve_loadtest.latencies import Latencies

Outcome: TypeAlias = Literal["ok", "wrong", "failed", "timeout", "refused", "dropped"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "wrong", "failed", "timeout", "refused", "dropped")
ERRORS: tuple[Outcome, ...] = ("wrong", "failed", "timeout", "dropped")
ERROR_TEXTS = 20


class Second(msgspec.Struct):
    """The requests meant to start in one second of a run. latencies: in µs, without refused requests."""

    latencies: Latencies
    outcomes: Counter[str]


class Recording:
    """One run of a schedule. Times in microseconds, latencies from the intended start.

    latencies: of every request that was sent and not refused, also wrong and failed ones, by release ("" if the answer
    names none). refused: latencies of refusals (503, 429 and similar). late: how long after their intended start
    requests were sent.
    """

    def __init__(self) -> None:
        self.releases: dict[str, Latencies] = {}
        self.refused = Latencies()
        self.late = Latencies()
        self.seconds: dict[int, Second] = {}
        self.errors: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.elapsed = 0.0
        """Seconds from the first intended start to the last answer; the maximum over all generators."""
        self.busy = 0.0
        """Share of the time that the generator computed or waited for a core; the maximum over all generators."""

    def add(self, second: int, latency: int, late: int, outcome: Outcome, release: str, rows: int) -> None:
        """Add one request: its intended start [s], its times [µs], its outcome and its release."""
        place = self._second(second)
        place.outcomes[outcome] += 1
        self.late.record(late)
        if outcome == "refused":
            self.refused.record(latency)
            return
        place.latencies.record(latency)
        found = self.releases.get(release)
        if found is None:
            found = self.releases[release] = Latencies()
        found.record(latency)
        if outcome == "ok":
            self.counts["rows"] += rows

    def drop(self, second: int) -> None:
        """Add one request that was never sent, because no user was free."""
        self._second(second).outcomes["dropped"] += 1

    def error(self, text: str) -> None:
        """Count an error or a refusal by its text, or after many different texts as `others`."""
        known = text in self.errors or len(self.errors) < ERROR_TEXTS
        self.errors[text if known else "others"] += 1

    def _second(self, number: int) -> Second:
        found = self.seconds.get(number)
        if found is None:
            found = self.seconds[number] = Second(Latencies(), Counter())
        return found

    @property
    def outcomes(self) -> Counter[str]:
        """The number of requests by outcome."""
        return sum((second.outcomes for second in self.seconds.values()), Counter())

    @property
    def latencies(self) -> Latencies:
        """The latencies of all requests that were sent and not refused."""
        merged = Latencies()
        for latencies in self.releases.values():
            merged.merge(latencies)
        return merged

    def merge(self, other: Recording) -> None:
        """Add what another generator measured in the same run."""
        for release, latencies in other.releases.items():
            self.releases.setdefault(release, Latencies()).merge(latencies)
        self.refused.merge(other.refused)
        self.late.merge(other.late)
        for number, second in other.seconds.items():
            mine = self._second(number)
            mine.latencies.merge(second.latencies)
            mine.outcomes += second.outcomes
        self.errors += other.errors
        self.counts += other.counts
        self.elapsed = max(self.elapsed, other.elapsed)
        self.busy = max(self.busy, other.busy)

    def encode(self) -> bytes:
        """The form that `decode` reads, with histograms in HdrHistogram's own encoding."""
        return msgspec.msgpack.encode(
            _Encoded(
                {release: latencies.encode() for release, latencies in self.releases.items()},
                self.refused.encode(),
                self.late.encode(),
                {n: (second.latencies.encode(), dict(second.outcomes)) for n, second in self.seconds.items()},
                dict(self.errors),
                dict(self.counts),
                self.elapsed,
                self.busy,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Recording:
        """A recording from its encoding."""
        encoded = msgspec.msgpack.decode(data, type=_Encoded)
        recording = cls()
        recording.releases = {release: Latencies(data) for release, data in encoded.releases.items()}
        recording.refused, recording.late = Latencies(encoded.refused), Latencies(encoded.late)
        recording.seconds = {
            number: Second(Latencies(data), Counter(outcomes)) for number, (data, outcomes) in encoded.seconds.items()
        }
        recording.errors, recording.counts = Counter(encoded.errors), Counter(encoded.counts)
        recording.elapsed, recording.busy = encoded.elapsed, encoded.busy
        return recording


class _Encoded(msgspec.Struct, array_like=True):
    releases: dict[str, bytes]
    refused: bytes
    late: bytes
    seconds: dict[int, tuple[bytes, dict[str, int]]]
    errors: dict[str, int]
    counts: dict[str, int]
    elapsed: float
    busy: float
