"""What only the user knows about a model: neither the object nor the file holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

Rounds: TypeAlias = int | Literal["best"]


class Facts(msgspec.Struct, frozen=True):
    """The facts about a model that were given to `save`.

    missing: the number that meant a missing value when a Booster was trained, NaN if there was none, None if it was
    not given. rounds: how many boosting rounds of a Booster to predict with. codes: by feature, the categories in the
    order of the numbers, from 0, that the model was trained on in their place.
    """

    missing: float | None = None
    rounds: Rounds | None = None
    codes: Mapping[str, Sequence[str]] = {}

    @property
    def markers(self) -> tuple[float, ...]:
        """The number, if any, that means a missing value as NaN does."""
        return () if self.missing is None or math.isnan(self.missing) else (float(self.missing),)

    def without_codes(self) -> Facts:
        """The facts for a model after a preprocessor, without codes: the preprocessor is given the categories."""
        return msgspec.structs.replace(self, codes={})
