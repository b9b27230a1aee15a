"""What only its user knows of a model: neither its object nor its file tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

Rounds: TypeAlias = int | Literal["best"]


class Facts(msgspec.Struct, frozen=True):
    """What `save` was told.

    missing: the number that meant a missing value when a Booster was trained, NaN for none, None where nothing was
    said. rounds: how many boosting rounds of a Booster to predict with. codes: categories in the order of the numbers
    that a model was trained on in their place, from 0, by feature.
    """

    missing: float | None = None
    rounds: Rounds | None = None
    codes: Mapping[str, Sequence[str]] = {}

    @property
    def markers(self) -> tuple[float, ...]:
        """The number that means a missing value beside NaN, if any."""
        return () if self.missing is None or math.isnan(self.missing) else (float(self.missing),)

    def without_codes(self) -> Facts:
        """These facts of a model behind a preprocessor, which is what is given the categories."""
        return msgspec.structs.replace(self, codes={})
