"""Compare what both slots answered to copies of the same requests; everything is counted, and no value is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.rollout.answers import DECIDING, Rows
from tabserve.rollout.checks import BOUNDS

DELTAS = (0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
"""Bounds of the differences of scores, without their sign; the first bin holds those that are the same."""
MOST_IDS = 20
"""The most requests that are named for each kind of difference."""
MOST_CELLS = 100
"""The most pairs of decisions that are told apart."""
UNANSWERED = "(none)"
"""What is said for a row that one slot alone found fault with, in a batch whose good rows are answered."""
_NAME_LENGTH = 64


class Answer(NamedTuple):
    """What a slot answered: the status, 0 for no answer in time, the seconds it took, and its rows, if known."""

    status: int
    seconds: float
    rows: Rows | None = None

    @property
    def good(self) -> bool:
        """Whether it is an answer."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether the request was refused."""
        return 400 <= self.status < 500


class Pairs(NamedTuple):
    """What evidence is made from: requests that both slots were asked.

    pairs: both answered. decided: both decided their first row. different: otherwise than each other.
    canary_refused and so on: by this slot alone.
    """

    asked: int = 0
    pairs: int = 0
    decided: int = 0
    different: int = 0
    canary_refused: int = 0
    stable_refused: int = 0
    canary_failed: int = 0
    stable_failed: int = 0


NO_PAIRS = Pairs()


class Cell(msgspec.Struct):
    """Rows that stable decides one way and the canary another. requests: of which it is the first row."""

    requests: int = 0
    rows: int = 0
    ids: list[str] = []

    def add(self, places: Sequence[int], identity: str, *, first: bool) -> None:
        """Add some rows of a request, named as in the decision log: the request's id, and the row's place."""
        self.requests += first
        self.rows += len(places)
        left = MOST_IDS - len(self.ids)
        self.ids += [f"{identity}/{place}" for place in places[:left]] if identity else []


class Copies(msgspec.Struct):
    """Everything that a shadow has counted.

    received: copies that came. Not asked were those over the rate (limited), those for which there was no room
    (dropped), those too long (large), and what is no inference over REST (unread). asked: by both slots.
    canary_refused, …: by this slot alone. failed: refused or failed by both. incomparable: both answered, but with
    other outputs. pairs: both answered. decided: these have decisions. different: their first rows have different ones.
    rows, different_rows: of all rows. flips: by stable's decision, then the canary's.
    scored, deltas, shift, largest: of first rows, pairs with a score, how many have a difference in each bin, their sum
    from stable to the canary, and the largest without its sign. stable_seconds, canary_seconds: answers by BOUNDS.
    """

    received: int = 0
    limited: int = 0
    dropped: int = 0
    large: int = 0
    unread: int = 0
    grpc: int = 0
    asked: int = 0
    canary_refused: int = 0
    stable_refused: int = 0
    canary_failed: int = 0
    stable_failed: int = 0
    failed: int = 0
    incomparable: int = 0
    pairs: int = 0
    decided: int = 0
    different: int = 0
    rows: int = 0
    different_rows: int = 0
    scored: int = 0
    shift: float = 0.0
    largest: float = 0.0
    deltas: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DELTAS) + 1))
    stable_seconds: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    canary_seconds: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    flips: dict[str, dict[str, Cell]] = {}
    refused_ids: list[str] = []
    """Requests that the canary alone refused."""

    def copy(self) -> Copies:
        """The same counts, which stay as they are."""
        return msgspec.convert(msgspec.to_builtins(self), Copies)

    def since(self, old: Copies) -> Pairs:
        """What has come since."""
        return Pairs(*(getattr(self, name) - getattr(old, name) for name in Pairs._fields))

    def add(self, stable: Answer, canary: Answer, identity: str) -> None:
        """Count what both slots answered to one request. identity: its id, or nothing."""
        self.asked += 1
        self.stable_seconds[_bin(stable.seconds)] += stable.good
        self.canary_seconds[_bin(canary.seconds)] += canary.good
        if stable.good and canary.good:
            self._compare(stable.rows, canary.rows, identity)
        elif stable.good:
            self._one_alone("canary", canary)
            if canary.refused and identity and len(self.refused_ids) < MOST_IDS:
                self.refused_ids.append(identity)
        elif canary.good:
            self._one_alone("stable", stable)
        else:
            self.failed += 1

    def _one_alone(self, slot: str, answer: Answer) -> None:
        name = f"{slot}_{'refused' if answer.refused else 'failed'}"
        setattr(self, name, getattr(self, name) + 1)

    def _compare(self, stable: Rows | None, canary: Rows | None, identity: str) -> None:
        if stable is None or canary is None or not len(stable.places) + len(canary.places):
            self.incomparable += 1
            return
        deciding = next((name for name in DECIDING if name in stable.decided and name in canary.decided), None)
        if deciding is None and (stable.decided or canary.decided):
            self.incomparable += 1
            return
        self.pairs += 1
        places = np.union1d(stable.places, canary.places)
        self.rows += len(places)
        if deciding is not None:
            before, after = (_decided(rows, deciding, places) for rows in (stable, canary))
            self._decisions(places, before, after, identity)
        if stable.scores is not None and canary.scores is not None and stable.places[0] == canary.places[0] == 0:
            self._score(float(canary.scores[0] - stable.scores[0]))

    def _decisions(self, places: Array, stable: Array, canary: Array, identity: str) -> None:
        self.decided += 1
        (other,) = np.nonzero(stable != canary)
        self.different_rows += len(other)
        self.different += bool(len(other) and other[0] == 0)
        found: dict[tuple[str, str], list[int]] = {}
        for at in other.tolist():
            found.setdefault((stable[at][:_NAME_LENGTH], canary[at][:_NAME_LENGTH]), []).append(at)
        for flip, rows in found.items():
            cell = self._cell(*flip)
            if cell is not None:
                cell.add(places[rows].tolist(), identity, first=rows[0] == 0)

    def _cell(self, before: str, after: str) -> Cell | None:
        """The cell of two decisions, None if there are too many already."""
        if after not in self.flips.get(before, {}) and sum(map(len, self.flips.values())) < MOST_CELLS:
            self.flips.setdefault(before, {})[after] = Cell()
        return self.flips.get(before, {}).get(after)

    def _score(self, delta: float) -> None:
        if np.isfinite(delta):
            self.scored += 1
            self.shift += delta
            self.largest = max(self.largest, abs(delta))
            self.deltas[int(np.searchsorted(DELTAS, abs(delta)))] += 1


def _bin(seconds: float) -> int:
    return int(np.searchsorted(BOUNDS, seconds))


def _decided(rows: Rows, name: str, places: Array) -> Array:
    """The decisions at these places."""
    made = np.full(len(places), UNANSWERED, object)
    made[np.searchsorted(places, rows.places)] = rows.decided[name]
    return made
