"""`schema.yaml`: record fields, features, outputs and decisions, checked (every key: docs/schema.md)."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

import msgspec

from tabserve.schema.misfits import MisfitError, Misfits, Strict, repeated, unknown_name
from tabserve.schema.timestamps import is_date, seconds

Task: TypeAlias = Literal["binary", "multiclass", "regression", "anomaly"]
FieldType: TypeAlias = Literal["number", "integer", "boolean", "category", "text", "timestamp", "date"]
Logged: TypeAlias = Literal["keep", "hash", "drop"]
OutputName: TypeAlias = Literal["predict", "predict_proba", "label", "margin", "anomaly_score", "contributions"]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
FieldName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[^\"\\\\`\x00-\x1f\ud800-\udfff]+$")]
"""A JSON key that needs no escapes."""

ANSWERED = frozenset(typing.get_args(OutputName)) | {"decision", "score", "reasons", "row", "engine", "rows", "errors"}
"""Names that answers have."""
PREDICT, MARGIN, ANOMALY_SCORE = "predict", "margin", "anomaly_score"
"""Outputs that may be a decision's score, besides a class's probability."""
OTHER = "other"
"""The category that unknown values become."""
NOW = "now"
"""The default of a timestamp that means the time of the request."""
TODAY = "today"
"""The default of a date that means the day of the request, in UTC."""
MOST_CHARACTERS = 10_000
"""How many characters a text may have if the schema does not say."""
WHOLE_LIMIT = 2.0**53 - 1
"""The largest whole number up to which all are exact in FP64."""

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
_NUMBERS: tuple[FieldType, ...] = ("number", "integer")
_TIMES: tuple[FieldType, ...] = ("timestamp", "date")
_SOURCES: dict[str, tuple[FieldType, ...]] = {
    "days_between": _TIMES,
    "hour_of": ("timestamp",),
    "weekday_of": _TIMES,
    "month_of": _TIMES,
    "ratio": _NUMBERS,
    "log": _NUMBERS,
}
"""The types of the fields that each rule of a derived feature reads."""
_WHOLE_RULES = ("hour_of", "weekday_of", "month_of")


class Field(Strict, frozen=True, dict=True):
    """One named field of a record.

    min, max: inclusive bounds of a number or integer, in `unit`.
    values: the categories, in the order of their codes. unknown: what a value outside them does, `error` (400) or
    `other` (becomes the category "other", which must then be one of `values`).
    max_length: how many characters a text may have.
    required: whether a record must have it. default: what an absent or null field becomes; null is a missing value
    (NaN for a number). For a timestamp "now" is the time of the request, and for a date "today" is its day in UTC. A
    missing text is an empty one.
    use: `audit` for what is checked and carried through, and never seen by the model.
    logged: what the decision log holds of it: `keep` the value, `hash` only its keyed hash, `drop` nothing.
    """

    name: FieldName
    type: FieldType
    min: float | None = None
    max: float | None = None
    unit: str | None = None
    values: tuple[str, ...] = ()
    unknown: Literal["error", "other"] = "error"
    max_length: Annotated[int, msgspec.Meta(ge=1)] | None = None
    required: bool = True
    default: float | bool | str | None = None
    use: Literal["audit"] | None = None
    logged: Logged = "keep"
    description: str | None = None

    def _misfits(self) -> Misfits:
        bounds = list(self._wrong_bounds())
        yield from bounds
        yield from self._wrong_values()
        yield from self._wrong_default() if not bounds else ()

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and largest number the field takes, infinite if there is none."""
        low, high = (-WHOLE_LIMIT, WHOLE_LIMIT) if self.type == "integer" else (-math.inf, math.inf)
        return (low if self.min is None else self.min, high if self.max is None else self.max)

    def _wrong_bounds(self) -> Misfits:
        for key, value in (("min", self.min), ("max", self.max), ("unit", self.unit)):
            if value is not None and self.type not in _NUMBERS:
                yield MisfitError(f"`{key}` is for a number or integer, got a {self.type}", key)
            if isinstance(value, float) and not math.isfinite(value):
                yield MisfitError(f"expected a finite number, got {value}", key)
        low, high = self.bounds
        if low > high and self.type in _NUMBERS:
            yield MisfitError(f"expected `min` at most `max`, got {low:g} and {high:g}", "min")

    @property
    def longest(self) -> int:
        """How many characters a text may have."""
        return self.max_length or MOST_CHARACTERS

    @cached_property
    def numbered(self) -> bool:
        """Whether every category but `other` is a whole number, which records may then give as a number."""
        named = [value for value in self.values if value != OTHER]
        whole = all(_WHOLE_NUMBER.fullmatch(value) and abs(int(value)) <= WHOLE_LIMIT for value in named)
        return bool(named) and whole

    def _wrong_values(self) -> Misfits:
        if self.max_length is not None and self.type != "text":
            yield MisfitError(f"`max_length` is for a text, got a {self.type}", "max_length")
        if self.type != "category":
            for key in ("values", "unknown"):
                if getattr(self, key) not in ((), "error"):
                    yield MisfitError(f"`{key}` is for a category, got a {self.type}", key)
        elif not self.values:
            yield MisfitError("a category needs `values`")
        yield from repeated(self.values, "values")
        if self.type == "category" and self.unknown == OTHER and OTHER not in self.values:
            yield MisfitError('`unknown: other` needs "other" in `values`', "unknown")

    def _wrong_default(self) -> Misfits:
        if self.required and self.default is not None:
            yield MisfitError("a required field has no default: set `required: false`", "default")
        expected = self._expected_default()
        if expected is not None and not self.required:
            yield MisfitError(f"expected {expected}, got {self.default!r}", "default")

    def _expected_default(self) -> str | None:
        """What the default should have been, or None if it is right."""
        value, (low, high) = self.default, self.bounds
        if value is None:
            return None
        if self.type == "boolean":
            return None if isinstance(value, bool) else "true or false"
        if self.type == "category":
            return None if value in self.values else "one of `values`"
        if self.type == "text":
            fits = isinstance(value, str) and len(value) <= self.longest
            return None if fits else f"text of at most {self.longest} characters"
        if self.type == "timestamp":
            fits = not isinstance(value, bool) and (value == NOW or seconds(value) is not None)
            return None if fits else '"now", an ISO 8601 time, or seconds since 1970'
        if self.type == "date":
            fits = isinstance(value, str) and (value == TODAY or is_date(value))
            return None if fits else '"today", or an ISO 8601 date'
        if isinstance(value, bool | str) or not math.isfinite(value):
            return "a finite number"
        if self.type == "integer" and not value.is_integer():
            return "a whole number"
        return None if low <= value <= high else f"a number from {low:g} to {high:g}"


class Derived(Strict, frozen=True):
    """A feature computed from fields; exactly one rule is set.

    days_between: days from the first field to the second, with fractions. hour_of: 0 to 23, UTC.
    weekday_of: 0 (Monday) to 6, UTC. month_of: 1 to 12, UTC.
    ratio: the first field divided by the second, missing where that is 0.
    log: the natural logarithm, missing where the field is not above 0.
    """

    name: Name
    days_between: tuple[str, str] | None = None
    hour_of: str | None = None
    weekday_of: str | None = None
    month_of: str | None = None
    ratio: tuple[str, str] | None = None
    log: str | None = None

    def _misfits(self) -> Misfits:
        if len(self.rules) != 1:
            yield MisfitError(f"expected exactly one of {', '.join(_SOURCES)}, got {len(self.rules)}")

    @property
    def rules(self) -> dict[str, tuple[str, ...]]:
        """The fields each rule reads."""
        given = {key: getattr(self, key) for key in _SOURCES}
        return {key: (of,) if isinstance(of, str) else of for key, of in given.items() if of is not None}

    def is_defined(self, fields: Mapping[str, Field]) -> bool:
        """Whether the feature has a value for all values that its fields may have."""
        if self.log is not None:
            return fields[self.log].bounds[0] > 0
        low, high = fields[self.ratio[1]].bounds if self.ratio else (1.0, 1.0)
        return low > 0 or high < 0


class Band(Strict, frozen=True, rename={"from_": "from"}):
    """Scores of at least `from` (and below the next higher band) get this label."""

    from_: float
    label: Name


class Decision(Strict, frozen=True):
    """Bands over a score, highest band first.

    score: a class (its probability), `margin` of a binary model, `predict` or a target of a regression, or
    `anomaly_score`. value: what a decision is worth where a class turns out to be the true one, 0 if it is not there.
    """

    score: str
    bands: tuple[Band, ...] = ()
    value: dict[Name, dict[Name, float]] = msgspec.field(default_factory=dict)

    def _misfits(self) -> Misfits:
        for index, band in enumerate(self.bands):
            if math.isnan(band.from_):
                yield MisfitError("expected a number, got nan", "bands", index, "from")
            elif index and not band.from_ < self.bands[index - 1].from_:
                expected = f"less than {self.bands[index - 1].from_:g}: bands go from the highest down"
                yield MisfitError(f"expected {expected}, got {band.from_:g}", "bands", index, "from")


class Reasons(Strict, frozen=True, rename={"for_": "for"}):
    """The `top` features that pushed a decision's score up the most, in words, or by name if they have none.

    for: labels of the bands that reasons are given for; empty for all.
    codes: what the decision log calls the features, besides their texts; by name if they have none.
    """

    top: Annotated[int, msgspec.Meta(ge=1)] = 3
    texts: dict[str, str] = msgspec.field(default_factory=dict)
    codes: dict[str, Name] = msgspec.field(default_factory=dict)
    for_: tuple[Name, ...] = ()

    def _misfits(self) -> Misfits:
        yield from repeated(self.for_, "for")


class Outputs(Strict, frozen=True):
    """What a release answers: class names in the model's order, default outputs of the predictor, decisions.

    targets: names of a regression's values, in the model's order, if it answers several.
    """

    classes: tuple[Name, ...] = ()
    targets: tuple[Name, ...] = ()
    default: tuple[OutputName, ...] = ()
    decision: Decision | None = None
    reasons: Reasons | None = None

    def _misfits(self) -> Misfits:
        yield from repeated(self.classes, "classes")
        yield from repeated(self.targets, "targets")
        yield from repeated(self.default, "default")


class Schema(Strict, frozen=True):
    """A whole `schema.yaml`. `features` is what the model (or its preprocessor) sees, in order.

    id: the key that identifies a record; it is carried through, and is not one of its fields.
    intended_use, limits: text for people, shown on the model's card.
    """

    task: Task
    record: Annotated[tuple[Field, ...], msgspec.Meta(min_length=1)]
    features: Annotated[tuple[str | Derived, ...], msgspec.Meta(min_length=1)]
    outputs: Outputs = Outputs()
    id: FieldName | None = None
    intended_use: str | None = None
    limits: str | None = None

    def _misfits(self) -> Misfits:
        yield from repeated([field.name for field in self.record], "record")
        if self.id in self.fields:
            yield MisfitError(f"`{self.id}` is already a record field", "id")
        if self.id in ANSWERED:
            yield MisfitError(f"`{self.id}` is the name of an answer", "id")
        yield from repeated(self.feature_names, "features")
        yield from self._wrong_features()
        yield from self._wrong_classes()
        yield from self._wrong_targets()
        yield from self._wrong_decision()
        yield from self._wrong_reasons()

    @property
    def fields(self) -> dict[str, Field]:
        """The record's fields by name, in order."""
        return {field.name: field for field in self.record}

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(f if isinstance(f, str) else f.name for f in self.features)

    @property
    def fields_read(self) -> frozenset[str]:
        """The fields that features are made from."""
        return frozenset().union(*self.sources.values())

    @property
    def sources(self) -> dict[str, frozenset[str]]:
        """The fields that each feature is made from, in order."""
        made = [{f} if isinstance(f, str) else set().union(*f.rules.values()) for f in self.features]
        return dict(zip(self.feature_names, map(frozenset, made), strict=True))

    @property
    def may_miss(self) -> frozenset[str]:
        """The features that have no value for some valid record."""
        optional = {
            field.name for field in self.record if not field.required and field.default is None and field.type != "text"
        }
        derived = [feature for feature in self.features if not isinstance(feature, str)]
        from_optional = {f.name for f in derived if any(optional.intersection(of) for of in f.rules.values())}
        undefined = {f.name for f in derived if not f.is_defined(self.fields)}
        return frozenset(optional | from_optional | undefined)

    @property
    def whole(self) -> frozenset[str]:
        """The features that are whole numbers: integers, booleans (0 and 1), hours, weekdays and months."""
        fields = {field.name for field in self.record if field.type in ("integer", "boolean")}
        derived = (feature for feature in self.features if not isinstance(feature, str))
        return frozenset(fields | {f.name for f in derived if any(rule in f.rules for rule in _WHOLE_RULES)})

    def _wrong_features(self) -> Misfits:
        fields = self.fields
        audited = {name for name, field in fields.items() if field.use == "audit"}
        for index, feature in enumerate(self.features):
            at = ("features", index)
            seen = {feature} if isinstance(feature, str) else set().union(*feature.rules.values())
            if seen & audited:
                yield MisfitError(f"the model never sees `{min(seen & audited)}`: its use is audit", *at)
            elif isinstance(feature, Derived):
                yield from self._wrong_derived(feature, *at)
            elif feature not in fields:
                yield unknown_name("record field", feature, tuple(fields), *at)
            elif (kind := fields[feature].type) in _TIMES:
                rules = " or ".join(rule for rule, taken in _SOURCES.items() if kind in taken)
                remedy = f"derive one with {rules}"
                yield MisfitError(f"the {kind} `{feature}` is not a feature by itself: {remedy}", *at)

    def _wrong_derived(self, feature: Derived, *at: str | int) -> Misfits:
        if feature.name in self.fields:
            yield MisfitError(f"`{feature.name}` is already a record field", *at, "name")
        for rule, sources in feature.rules.items():
            known = tuple(name for name, field in self.fields.items() if field.type in _SOURCES[rule])
            kinds = " or ".join(_SOURCES[rule])
            yield from (unknown_name(f"{kinds} field", each, known, *at, rule) for each in sources if each not in known)

    def _wrong_classes(self) -> Misfits:
        count = len(self.outputs.classes)
        at = ("outputs", "classes")
        if self.task == "regression" and count:
            yield MisfitError("a regression has no classes", *at)
        if self.task == "binary" and count not in (0, 2):
            yield MisfitError(f"expected two classes for a binary task, got {count}", *at)
        if self.task == "anomaly" and count not in (0, 2):
            yield MisfitError(f"expected two names, the anomaly's first, got {count}", *at)
        if self.task == "multiclass" and count == 1:
            yield MisfitError("expected at least two classes, got 1", *at)

    def _wrong_targets(self) -> Misfits:
        targets, at = self.outputs.targets, ("outputs", "targets")
        if targets and self.task != "regression":
            yield MisfitError(f"`targets` are for a regression, got task {self.task}", *at)
        if len(targets) == 1:
            yield MisfitError("expected at least two targets, got 1; the value of a regression has no name", *at)
        if targets and self.outputs.reasons and not self.outputs.decision:
            yield MisfitError(
                "reasons for several targets need a decision whose score is one of them", "outputs", "reasons"
            )

    def _wrong_decision(self) -> Misfits:
        decision = self.outputs.decision
        if decision is None:
            return
        known, at = self._scores(), ("outputs", "decision")
        if not known or (self.task == "binary" and not self.outputs.classes and decision.score != MARGIN):
            yield MisfitError("a decision over a class's probability needs `outputs.classes`", *at)
        elif decision.score not in known:
            yield unknown_name("score", decision.score, known, *at, "score")
        elif decision.bands:
            probability = decision.score in self.outputs.classes
            yield from _wrong_range([band.from_ for band in decision.bands], probability, at)
        yield from _wrong_worth(decision, self.outputs.classes)

    def _scores(self) -> tuple[str, ...]:
        """The scores that a decision may use."""
        if self.task == "regression":
            return self.outputs.targets or (PREDICT,)
        if self.task == "anomaly":
            return (ANOMALY_SCORE,)
        return (*self.outputs.classes, *([MARGIN] if self.task == "binary" else []))

    def _wrong_reasons(self) -> Misfits:
        reasons, decision, at = self.outputs.reasons, self.outputs.decision, ("outputs", "reasons")
        if reasons is None:
            return
        for key, named in (("texts", reasons.texts), ("codes", reasons.codes)):
            for feature in named:
                if feature not in self.feature_names:
                    yield unknown_name("feature", feature, self.feature_names, *at, key, feature)
        labels = tuple(dict.fromkeys(band.label for band in decision.bands)) if decision else ()
        for index, label in enumerate(reasons.for_):
            if label not in labels:
                yield unknown_name("band", label, labels, *at, "for", index)


def _wrong_worth(decision: Decision, classes: Sequence[str]) -> Misfits:
    """Find worths of decisions or classes that there are not."""
    at = ("outputs", "decision", "value")
    labels = tuple(dict.fromkeys(band.label for band in decision.bands)) or tuple(classes)
    if decision.value and not classes:
        yield MisfitError("the worth of decisions needs `outputs.classes`", *at)
        return
    for label, worth in decision.value.items():
        if label not in labels:
            yield unknown_name("decision", label, labels, *at, label)
        for name, number in worth.items():
            if name not in classes:
                yield unknown_name("class", name, tuple(classes), *at, label, name)
            elif not math.isfinite(number):
                yield MisfitError(f"expected a finite number, got {number}", *at, label, name)


def _wrong_range(lows: Sequence[float], probability: bool, at: tuple[str, ...]) -> Misfits:
    """Find bands that leave a score without a band, or that no score can reach."""
    bottom, text = (0.0, "0") if probability else (-math.inf, "-.inf")
    if lows[-1] > bottom:
        message = f"the lowest band must start at {text}, got {lows[-1]:g}"
        yield MisfitError(message, *at, "bands", len(lows) - 1, "from")
    if lows[0] > 1 and probability:
        yield MisfitError(f"expected a probability, 0 to 1, got {lows[0]:g}", *at, "bands", 0, "from")
