"""The keys of `schema.yaml`: record fields, features, outputs and decisions."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Task: TypeAlias = Literal["binary", "multiclass", "regression"]
FieldType: TypeAlias = Literal["number", "integer", "boolean", "category", "timestamp"]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Field(_Strict):
    """One named field of a record.

    min, max: inclusive bounds of a number or integer, in `unit`.
    values: the categories, in the order of their codes. unknown: what a value outside them does, `error` (400) or
    `other` (becomes the category "other", which must then be one of `values`).
    required: whether a record must have it. default: what an absent or null field becomes; null is a missing value
    (NaN for a number), and for a timestamp "now" is the time of the request.
    """

    name: str
    type: FieldType
    min: float | None = None
    max: float | None = None
    unit: str | None = None
    values: tuple[str, ...] = ()
    unknown: Literal["error", "other"] = "error"
    required: bool = True
    default: float | bool | str | None = None
    description: str | None = None


class Derived(_Strict):
    """A feature computed from timestamp fields; exactly one rule is set.

    days_between: days from the first field to the second, with fractions. hour_of: 0 to 23, UTC.
    weekday_of: 0 (Monday) to 6, UTC.
    """

    name: str
    days_between: tuple[str, str] | None = None
    hour_of: str | None = None
    weekday_of: str | None = None


class Band(_Strict, rename={"from_": "from"}):
    """Scores of at least `from` (and below the next higher band) get this label."""

    from_: float
    label: str


class Decision(_Strict):
    """Bands over a score: a class name (its probability), or `predict` for a regression's value. Highest band first."""

    score: str
    bands: tuple[Band, ...] = ()


class Reasons(_Strict):
    """The `top` features that pushed a decision's score up the most, in words; a feature without a text is named."""

    top: int = 3
    texts: dict[str, str] = {}


class Outputs(_Strict):
    """What comes out: class names in the model's order, default outputs of the predictor, decisions."""

    classes: tuple[str, ...] = ()
    default: tuple[str, ...] = ()
    decision: Decision | None = None
    reasons: Reasons | None = None


class Schema(_Strict):
    """A whole `schema.yaml`. `features` is what the model (or its preprocessor) sees, in order."""

    task: Task
    record: tuple[Field, ...]
    features: tuple[str | Derived, ...]
    outputs: Outputs = Outputs()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(f if isinstance(f, str) else f.name for f in self.features)
