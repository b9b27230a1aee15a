"""Choose which records a decision log keeps, and how much each of them counts."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np

from tabserve.arrays import Array
from tabserve.decision_log.entry import Entry, ids

_SCALE = 2.0**64


class Sampling:
    """Keeps a share of the records, and all of some decisions.

    A hash of a record's id says whether it is kept, and not chance. So a record that is asked again, or of another pod
    or release, is kept as before: logs can be compared, and joined with labels. A larger share keeps all that a smaller
    one does.
    sample: the share, 0 to 1. always: decisions whose records are all kept.
    """

    def __init__(self, sample: float, always: Collection[str]) -> None:
        self._sample = sample
        self._always = frozenset(always)

    def weights(self, entry: Entry) -> Array | None:
        """FP64 [rows]: 1 / the probability of being kept, 0 for what is not; None if everything is kept."""
        if self._sample >= 1.0:
            return None
        decided = entry.answers.get("decision")
        decisions = [""] * len(entry) if decided is None else decided.tolist()
        return np.array([self._weight(*each) for each in zip(ids(entry), decisions, strict=True)])

    def _weight(self, identity: str, decision: str) -> float:
        if decision in self._always:
            return 1.0
        return 1.0 / self._sample if place(identity) < self._sample else 0.0


def place(identity: str) -> float:
    """A number from 0 to 1 that only the id decides; those of many ids are spread evenly."""
    digest = hashlib.blake2b(identity.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / _SCALE
