"""Replay a decision log: make every decision again with the bundle that it names, and count what is equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tabserve.decision_log import reading
from tabserve.decision_log.comparing import Difference
from tabserve.decision_log.replayer import Outcome, Replayer, not_replayable
from tabserve.scoring.storage import RunError

FORMAT = 1
Result: TypeAlias = Literal["equal", "differs", "not replayable"]


class Differing(msgspec.Struct, frozen=True):
    """A decision that is another one when it is made again."""

    id: str
    time: str
    release: str
    digest: str
    request_id: str | None
    row: int
    source: str
    differences: list[Difference]


class Release(msgspec.Struct):
    """The decisions of one release with one bundle. not_replayable: how many by the reason."""

    release: str
    digest: str
    bundle: str | None
    records: int = 0
    equal: int = 0
    differs: int = 0
    not_replayable: Counter[str] = msgspec.field(default_factory=Counter)


class Replay(msgspec.Struct):
    """What a replay found, in the form of `--json`. differences: the first ones."""

    log: str
    result: Result
    records: int
    equal: int
    differs: int
    not_replayable: int
    releases: list[Release]
    differences: list[Differing]
    format: int = FORMAT


def by_digest(replayers: Sequence[Replayer]) -> dict[str, Replayer]:
    """The replayers by the digests of their bundles."""
    return {replayer.bundle.digest: replayer for replayer in replayers}


def outcomes(log: str, replayers: Sequence[Replayer], identity: str | None = None) -> Iterator[Outcome]:
    """What becomes of every record of a log, or of those with an id and of others of their requests.

    Raises RunError, OSError, and what engines raise.
    """
    known = by_digest(replayers)
    given = ", ".join(known)
    for batch in _batches(log, identity):
        for digest, part in _parts(batch, "digest"):
            if digest in known:
                yield from known[digest].replay(part)
            else:
                yield not_replayable(part, f"none of the bundles has the digest {digest}; given: {given}")
    for replayer in replayers:
        yield from replayer.rest()


def _batches(log: str, identity: str | None) -> Iterator[pa.RecordBatch]:
    """The records of a log; with an id, its own, and those that were decided at the same times if it was not alone."""
    if identity is None:
        yield from reading.batches(log)
        return
    found = [batch for batch in reading.batches(log, pc.field("id") == identity) if batch.num_rows]
    if not found:
        raise RunError(f"{log}: holds no decision with the id {identity!r}. Erased and sampled records are not there.")
    if all(pc.max(batch.column("rows")).as_py() == 1 for batch in found):
        yield from found
    else:
        times = pa.concat_arrays([batch.column("time") for batch in found])
        yield from reading.batches(log, pc.field("time").isin(times))


def _parts(batch: pa.RecordBatch, name: str) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The records by the text in a column."""
    column = batch.column(name)
    for value in pc.unique(column).to_pylist():
        yield value, batch.filter(pc.equal(column, value))


def replay(log: str, replayers: Sequence[Replayer], *, identity: str | None = None, most: int = 20) -> Replay:
    """Make every decision of a log again. identity: only the records with this id. most: differences to tell.

    Raises RunError, OSError, and what engines raise.
    """
    tally = _Tally(by_digest(replayers), identity, most)
    for outcome in outcomes(log, replayers, identity):
        tally.add(outcome)
    return tally.told(log)


class _Tally:
    def __init__(self, replayers: dict[str, Replayer], identity: str | None, most: int) -> None:
        self._replayers, self._identity, self._most = replayers, identity, most
        self._releases: dict[tuple[str, str], Release] = {}
        self._differences: list[Differing] = []

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        names = [batch_column.to_pylist() for batch_column in map(outcome.batch.column, ("release", "digest"))]
        releases = list(zip(*names, strict=True))
        wanted = self._wanted(outcome.batch)
        for key, count in Counter(releases[at] for at in wanted).items():
            self._release(*key).records += count
        chosen = set(wanted)
        for at, why in outcome.why.items():
            if at in chosen:
                self._release(*releases[at]).not_replayable[why] += 1
        for at, found in sorted(outcome.differences.items()):
            if at in chosen:
                self._release(*releases[at]).differs += 1
                if len(self._differences) < self._most:
                    self._differences.append(differing(outcome.batch, at, found))

    def _wanted(self, batch: pa.RecordBatch) -> Sequence[int]:
        if self._identity is None:
            return range(batch.num_rows)
        same = pc.equal(batch.column("id"), self._identity).to_numpy(zero_copy_only=False)
        return [int(at) for at in np.flatnonzero(same)]

    def _release(self, release: str, digest: str) -> Release:
        key = release, digest
        if key not in self._releases:
            replayer = self._replayers.get(digest)
            manifest = replayer.bundle.manifest if replayer else None
            named = f"{manifest.name} {manifest.version}" if manifest else None
            self._releases[key] = Release(release, digest, named)
        return self._releases[key]

    def told(self, log: str) -> Replay:
        """What was found."""
        releases = [self._releases[key] for key in sorted(self._releases)]
        for one in releases:
            one.equal = one.records - one.differs - one.not_replayable.total()
        records, equal, differs = (sum(getattr(one, n) for one in releases) for n in ("records", "equal", "differs"))
        lost = records - equal - differs
        result: Result = "differs" if differs else "not replayable" if lost or not records else "equal"
        return Replay(log, result, records, equal, differs, lost, releases, self._differences)


def differing(batch: pa.RecordBatch, at: int, found: list[Difference]) -> Differing:
    """A record that differs, with what identifies it."""
    names = ("id", "time", "release", "digest", "request_id", "row", "source")
    values = {name: batch.column(name)[at].as_py() for name in names}
    return Differing(**{**values, "time": values["time"].isoformat()}, differences=found)
