"""`schema.yaml`: record fields, features, outputs and decisions, read and checked (every key: docs/schema.md)."""

from __future__ import annotations

import difflib
import math
import re
import typing
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeAlias

import msgspec

from tabserve.schema.places import MalformedError, Places, Steps, dotted, steps
from tabserve.schema.timestamps import seconds

Task: TypeAlias = Literal["binary", "multiclass", "regression", "anomaly"]
FieldType: TypeAlias = Literal["number", "integer", "boolean", "category", "text", "timestamp"]
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
MOST_CHARACTERS = 10_000
"""How many characters a text may have if the schema does not say."""
WHOLE_LIMIT = 2.0**53 - 1
"""The largest whole number up to which all are exact in FP64."""

_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`")
_ENUM = re.compile(r"Invalid enum value (.*)")
_NUMBERS = ("number", "integer")


class SchemaError(ValueError):
    """A `schema.yaml` cannot be used; the message gives file, line, column, expected and got."""


class MisfitError(ValueError):
    """Keys do not fit each other; `path` leads from the struct that noticed to the key at fault."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


MOST_NAME = 200


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the most similar known name, ` (did you mean …?)`, or an empty string.

    The hint is empty if the name is far longer than any known one, because comparing it would take long.
    """
    if len(name) > MOST_NAME:
        return ""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean `{match[0]}`?)" if match else ""


def _refuse_name(kind: str, got: str, known: Sequence[str], *path: str | int) -> NoReturn:
    there = ", ".join(known) or "none"
    raise MisfitError(f"expected a {kind}, got `{got}`{nearest(got, known)}; there is {there}", *path)


def _check_unique(names: Sequence[str], *path: str | int) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            last = len(names) - 1 - list(reversed(names)).index(name)
            raise MisfitError(f"`{name}` is defined {count} times; names must be unique", *path, last)


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Field(_Strict, frozen=True):
    """One named field of a record.

    min, max: inclusive bounds of a number or integer, in `unit`.
    values: the categories, in the order of their codes. unknown: what a value outside them does, `error` (400) or
    `other` (becomes the category "other", which must then be one of `values`).
    max_length: how many characters a text may have.
    required: whether a record must have it. default: what an absent or null field becomes; null is a missing value
    (NaN for a number), and for a timestamp "now" is the time of the request. A missing text is an empty one.
    use: `audit` for what is checked and carried through, and never seen by the model.
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
    description: str | None = None

    def __post_init__(self) -> None:
        self._check_bounds()
        self._check_values()
        self._check_default()

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and largest number the field takes, infinite if there is none."""
        low, high = (-WHOLE_LIMIT, WHOLE_LIMIT) if self.type == "integer" else (-math.inf, math.inf)
        return (low if self.min is None else self.min, high if self.max is None else self.max)

    def _check_bounds(self) -> None:
        for key, value in (("min", self.min), ("max", self.max), ("unit", self.unit)):
            if value is not None and self.type not in _NUMBERS:
                raise MisfitError(f"`{key}` is for a number or integer, got a {self.type}", key)
            if isinstance(value, float) and not math.isfinite(value):
                raise MisfitError(f"expected a finite number, got {value}", key)
        low, high = self.bounds
        if low > high:
            raise MisfitError(f"expected `min` at most `max`, got {low:g} and {high:g}", "min")

    @property
    def longest(self) -> int:
        """How many characters a text may have."""
        return self.max_length or MOST_CHARACTERS

    def _check_values(self) -> None:
        if self.max_length is not None and self.type != "text":
            raise MisfitError(f"`max_length` is for a text, got a {self.type}", "max_length")
        if self.type != "category":
            for key in ("values", "unknown"):
                if getattr(self, key) not in ((), "error"):
                    raise MisfitError(f"`{key}` is for a category, got a {self.type}", key)
        elif not self.values:
            raise MisfitError("a category needs `values`")
        _check_unique(self.values, "values")
        if self.unknown == OTHER and OTHER not in self.values:
            raise MisfitError('`unknown: other` needs "other" in `values`', "unknown")

    def _check_default(self) -> None:
        if self.required and self.default is not None:
            raise MisfitError("a required field has no default: set `required: false`", "default")
        expected = self._expected_default()
        if expected is not None:
            raise MisfitError(f"expected {expected}, got {self.default!r}", "default")

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
        if isinstance(value, bool | str) or not math.isfinite(value):
            return "a finite number"
        if self.type == "integer" and not value.is_integer():
            return "a whole number"
        return None if low <= value <= high else f"a number from {low:g} to {high:g}"


class Derived(_Strict, frozen=True):
    """A feature computed from timestamp fields; exactly one rule is set.

    days_between: days from the first field to the second, with fractions. hour_of: 0 to 23, UTC.
    weekday_of: 0 (Monday) to 6, UTC.
    """

    name: Name
    days_between: tuple[str, str] | None = None
    hour_of: str | None = None
    weekday_of: str | None = None

    def __post_init__(self) -> None:
        if len(self.rules) != 1:
            raise MisfitError(f"expected exactly one of days_between, hour_of and weekday_of, got {len(self.rules)}")

    @property
    def rules(self) -> dict[str, tuple[str, ...]]:
        """The fields each rule reads."""
        rules = {"days_between": self.days_between, "hour_of": self.hour_of, "weekday_of": self.weekday_of}
        return {key: (of,) if isinstance(of, str) else of for key, of in rules.items() if of is not None}


class Band(_Strict, frozen=True, rename={"from_": "from"}):
    """Scores of at least `from` (and below the next higher band) get this label."""

    from_: float
    label: Name


class Decision(_Strict, frozen=True):
    """Bands over a score, highest band first.

    score: a class (its probability), `margin` of a binary model, `predict` or a target of a regression, or
    `anomaly_score`.
    """

    score: str
    bands: tuple[Band, ...] = ()

    def __post_init__(self) -> None:
        for index, band in enumerate(self.bands):
            if math.isnan(band.from_):
                raise MisfitError("expected a number, got nan", "bands", index, "from")
            if index and not band.from_ < self.bands[index - 1].from_:
                expected = f"less than {self.bands[index - 1].from_:g}: bands go from the highest down"
                raise MisfitError(f"expected {expected}, got {band.from_:g}", "bands", index, "from")


class Reasons(_Strict, frozen=True, rename={"for_": "for"}):
    """The `top` features that pushed a decision's score up the most, in words, or by name if they have none.

    for: labels of the bands that reasons are given for; empty for all.
    """

    top: Annotated[int, msgspec.Meta(ge=1)] = 3
    texts: dict[str, str] = {}
    for_: tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        _check_unique(self.for_, "for")


class Outputs(_Strict, frozen=True):
    """What a release answers: class names in the model's order, default outputs of the predictor, decisions.

    targets: names of a regression's values, in the model's order, if it answers several.
    """

    classes: tuple[Name, ...] = ()
    targets: tuple[Name, ...] = ()
    default: tuple[OutputName, ...] = ()
    decision: Decision | None = None
    reasons: Reasons | None = None

    def __post_init__(self) -> None:
        _check_unique(self.classes, "classes")
        _check_unique(self.targets, "targets")
        _check_unique(self.default, "default")


class Schema(_Strict, frozen=True):
    """A whole `schema.yaml`. `features` is what the model (or its preprocessor) sees, in order.

    id: the key that identifies a record; it is carried through, and is not one of its fields.
    """

    task: Task
    record: Annotated[tuple[Field, ...], msgspec.Meta(min_length=1)]
    features: Annotated[tuple[str | Derived, ...], msgspec.Meta(min_length=1)]
    outputs: Outputs = Outputs()
    id: FieldName | None = None

    def __post_init__(self) -> None:
        _check_unique([field.name for field in self.record], "record")
        if self.id in self.fields:
            raise MisfitError(f"`{self.id}` is already a record field", "id")
        if self.id in ANSWERED:
            raise MisfitError(f"`{self.id}` is the name of an answer", "id")
        _check_unique(self.feature_names, "features")
        self._check_features()
        self._check_classes()
        self._check_targets()
        self._check_decision()
        self._check_reasons()

    @property
    def fields(self) -> dict[str, Field]:
        """The record's fields by name, in order."""
        return {field.name: field for field in self.record}

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(f if isinstance(f, str) else f.name for f in self.features)

    @property
    def may_miss(self) -> frozenset[str]:
        """The features that a valid record may leave without a value."""
        optional = {
            field.name for field in self.record if not field.required and field.default is None and field.type != "text"
        }
        derived = (feature for feature in self.features if not isinstance(feature, str))
        from_optional = {f.name for f in derived if any(optional.intersection(of) for of in f.rules.values())}
        return frozenset(optional | from_optional)

    @property
    def whole(self) -> frozenset[str]:
        """The features that are whole numbers: integers, booleans (0 and 1), hours and weekdays."""
        fields = {field.name for field in self.record if field.type in ("integer", "boolean")}
        derived = {f.name for f in self.features if not isinstance(f, str) and f.days_between is None}
        return frozenset(fields | derived)

    def _check_features(self) -> None:
        fields = self.fields
        times = tuple(name for name, field in fields.items() if field.type == "timestamp")
        audited = {name for name, field in fields.items() if field.use == "audit"}
        for index, feature in enumerate(self.features):
            seen = {feature} if isinstance(feature, str) else set().union(*feature.rules.values())
            if seen & audited:
                raise MisfitError(f"the model never sees `{min(seen & audited)}`: its use is audit", "features", index)
            if isinstance(feature, Derived):
                if feature.name in fields:
                    raise MisfitError(f"`{feature.name}` is already a record field", "features", index, "name")
                for rule, sources in feature.rules.items():
                    for source in sources:
                        if source not in times:
                            _refuse_name("timestamp field", source, times, "features", index, rule)
            elif feature not in fields:
                _refuse_name("record field", feature, tuple(fields), "features", index)
            elif feature in times:
                remedy = "derive one with days_between, hour_of or weekday_of"
                raise MisfitError(f"the timestamp `{feature}` is not a feature by itself: {remedy}", "features", index)

    def _check_classes(self) -> None:
        count = len(self.outputs.classes)
        at = ("outputs", "classes")
        if self.task == "regression" and count:
            raise MisfitError("a regression has no classes", *at)
        if self.task == "binary" and count not in (0, 2):
            raise MisfitError(f"expected two classes for a binary task, got {count}", *at)
        if self.task == "anomaly" and count not in (0, 2):
            raise MisfitError(f"expected two names, the anomaly's first, got {count}", *at)
        if self.task == "multiclass" and count == 1:
            raise MisfitError("expected at least two classes, got 1", *at)

    def _check_targets(self) -> None:
        targets, at = self.outputs.targets, ("outputs", "targets")
        if targets and self.task != "regression":
            raise MisfitError(f"`targets` are for a regression, got task {self.task}", *at)
        if len(targets) == 1:
            raise MisfitError("expected at least two targets, got 1; the value of a regression has no name", *at)
        if targets and self.outputs.reasons and not self.outputs.decision:
            raise MisfitError(
                "reasons for several targets need a decision whose score is one of them", "outputs", "reasons"
            )

    def _check_decision(self) -> None:
        decision = self.outputs.decision
        if decision is None:
            return
        known, at = self._scores(), ("outputs", "decision")
        if not known or (self.task == "binary" and not self.outputs.classes and decision.score != MARGIN):
            raise MisfitError("a decision over a class's probability needs `outputs.classes`", *at)
        if decision.score not in known:
            _refuse_name("score", decision.score, known, *at, "score")
        if decision.bands:
            probability = decision.score in self.outputs.classes
            _check_range([band.from_ for band in decision.bands], probability, at)

    def _scores(self) -> tuple[str, ...]:
        """The scores that a decision may use."""
        if self.task == "regression":
            return self.outputs.targets or (PREDICT,)
        if self.task == "anomaly":
            return (ANOMALY_SCORE,)
        return (*self.outputs.classes, *([MARGIN] if self.task == "binary" else []))

    def _check_reasons(self) -> None:
        reasons, decision, at = self.outputs.reasons, self.outputs.decision, ("outputs", "reasons")
        if reasons is None:
            return
        for feature in reasons.texts:
            if feature not in self.feature_names:
                _refuse_name("feature", feature, self.feature_names, *at, "texts", feature)
        labels = tuple(dict.fromkeys(band.label for band in decision.bands)) if decision else ()
        for index, label in enumerate(reasons.for_):
            if label not in labels:
                _refuse_name("band", label, labels, *at, "for", index)


def load(path: Path) -> Schema:
    """The schema in a file.

    Raises SchemaError naming file, line and column, and OSError where the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path}: expected UTF-8, got {error.reason} at byte {error.start}") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Schema:
    """The schema in a YAML text; `source` is its name in errors. Raises SchemaError."""
    try:
        places = Places(text)
    except MalformedError as error:
        raise SchemaError(f"{source}:{error.line}:{error.column}: {error}") from error
    try:
        return msgspec.convert(places.value, Schema)
    except (msgspec.ValidationError, RecursionError) as error:
        raise SchemaError(f"{source}:{_explain(places, error)}") from error


def _check_range(lows: Sequence[float], probability: bool, at: tuple[str, ...]) -> None:
    """Refuse bands that leave a score without a band, or that no score can reach."""
    bottom, text = (0.0, "0") if probability else (-math.inf, "-.inf")
    if lows[-1] > bottom:
        message = f"the lowest band must start at {text}, got {lows[-1]:g}"
        raise MisfitError(message, *at, "bands", len(lows) - 1, "from")
    if lows[0] > 1 and probability:
        raise MisfitError(f"expected a probability, 0 to 1, got {lows[0]:g}", *at, "bands", 0, "from")


def _explain(places: Places, error: Exception) -> str:
    """Line, column and message of a problem that msgspec or a rule found."""
    message, _, where = str(error).rpartition(" - at `")
    if not message:
        message, where = str(error), "$`"
    path = steps(where[:-1])
    unknown = _UNKNOWN_KEY.fullmatch(message)
    if isinstance(error.__cause__, MisfitError):
        path += error.__cause__.path
    elif unknown:
        path += (unknown[1],)
        message = f"unknown key{nearest(unknown[1], _keys(path[:-1]))}"
    else:
        message = _reworded(message, path, _value(places.value, path))
    line, column = places.position(path, of_key=bool(unknown))
    return f"{line}:{column}: {f'`{dotted(path)}`: ' if path else ''}{message}"


def _reworded(message: str, path: Steps, value: Any) -> str:
    got = msgspec.json.encode(value, enc_hook=str).decode() if isinstance(value, str | int | float) else ""
    if _ENUM.fullmatch(message):
        return f"expected one of {', '.join(_choices(path))}, got {got}"
    for theirs, ours in (("Object missing required field", "missing key"), ("object", "mapping"), ("`", "")):
        message = message.replace(theirs, ours)
    quote = ": put it in quotes" if "Expected str" in message and got else ""
    return f"{message[0].lower()}{message[1:]}{f' ({got})' if got else ''}{quote}"


def _value(value: Any, path: Steps) -> Any:
    """The value at a path, None if there is none."""
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value


def _keys(path: Steps) -> tuple[str, ...]:
    """The keys known at a path."""
    return _MAPPINGS[tuple(step for step in path if isinstance(step, str))].__struct_encode_fields__


def _choices(path: Steps) -> tuple[str, ...]:
    """The values a Literal at a path takes."""
    *parents, key = (step for step in path if isinstance(step, str))
    hint = typing.get_type_hints(_MAPPINGS[tuple(parents)])[key]
    return typing.get_args(hint if typing.get_origin(hint) is Literal else typing.get_args(hint)[0])


_MAPPINGS: dict[tuple[str, ...], type[_Strict]] = {
    (): Schema,
    ("record",): Field,
    ("features",): Derived,
    ("outputs",): Outputs,
    ("outputs", "decision"): Decision,
    ("outputs", "decision", "bands"): Band,
    ("outputs", "reasons"): Reasons,
}
