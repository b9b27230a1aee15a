"""Explain one logged decision: what was decided on what, by what, why, and whether it is decided so again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import zip_longest
from typing import Any

import msgspec
import pyarrow as pa

from tabserve.arrays import Array
from tabserve.decision_log.comparing import Difference
from tabserve.decision_log.entry import SHADOW
from tabserve.decision_log.replay import Result, by_digest, outcomes
from tabserve.decision_log.replayer import Outcome, Replayer
from tabserve.inference.errors import InvalidRequest
from tabserve.schema import ranges
from tabserve.schema.ranges import Range
from tabserve.schema.schema import MARGIN, Derived, Field, Schema
from tabserve.schema.timestamps import moment
from tabserve.scoring.storage import RunError

_NOTES = {"hash": "only its keyed hash is in the log", "drop": "not in the log"}


class Value(msgspec.Struct, frozen=True):
    """A field of the record, in words."""

    name: str
    value: str
    unit: str
    description: str
    note: str


class Push(msgspec.Struct, frozen=True):
    """What a feature added to the score, with the words that reasons use for it. value: the feature's, in words."""

    name: str
    text: str
    value: str
    amount: float


class Why(msgspec.Struct, frozen=True):
    """Exact contributions, the strongest first: with the base they add up to `total`, which is called `scale`."""

    pushes: list[Push]
    base: float
    total: float
    scale: str


class Explanation(msgspec.Struct, frozen=True):
    """One decision. why: None if contributions cannot be computed, because of `no_why`.

    others: when else something was decided about a record with this id, and whether for a shadow.
    """

    id: str
    time: str
    facts: dict[str, str]
    bundle: str
    decision: str
    score: float | None
    label: str
    values: list[Value]
    bands: list[Range]
    limits: tuple[float, float]
    reasons: list[tuple[str, str]]
    why: Why | None
    no_why: str
    result: Result
    because: str
    differences: list[Difference]
    made: str
    others: list[str]


def explain(log: str, identity: str, replayers: Sequence[Replayer], now: datetime) -> Explanation:
    """The last decision about the record with an id; one that a client got, if there is one.

    Raises RunError if there is none, or none of the bundles made it; and OSError.
    """
    found = [
        (outcome, at)
        for outcome in outcomes(log, replayers, identity)
        for at, one in enumerate(outcome.batch.column("id").to_pylist())
        if one == identity
    ]
    found.sort(key=_order)
    outcome, at = found[-1]
    others = [_other(asked, time) for asked, time in map(_order, found[:-1])]
    digest = outcome.batch.column("digest")[at].as_py()
    replayer = by_digest(replayers).get(digest)
    if replayer is None:
        raise RunError(f"{identity}: {outcome.why[at]}. Give the bundle that made the decision.")
    return _explanation(replayer, outcome, at, others, now)


def _order(found: tuple[Outcome, int]) -> tuple[bool, datetime]:
    """Whether a client got the decision, and when it was made."""
    outcome, at = found
    source, time = (outcome.batch.column(name)[at].as_py() for name in ("source", "time"))
    return source != SHADOW, time


def _other(asked: bool, time: datetime) -> str:
    return _moment(time) if asked else f"{_moment(time)} for a shadow"


def _explanation(replayer: Replayer, outcome: Outcome, at: int, others: list[str], now: datetime) -> Explanation:
    batch = outcome.batch.slice(at, 1)
    (row,) = batch.to_pylist()
    manifest, schema = replayer.bundle.manifest, replayer.bundle.schema
    score = row.get("score")
    because, differences = outcome.why.get(at, ""), outcome.differences.get(at, [])
    why, no_why = _why(replayer, batch, row)
    return Explanation(
        id=row["id"],
        time=_moment(row["time"]),
        facts=_facts(row),
        bundle=f"{manifest.name} {manifest.version}",
        decision=row.get("decision") or "",
        score=score,
        label=row.get("label") or "",
        values=_values(schema, row.get("record") or {}),
        bands=ranges.of_schema(schema, row.get("decision")),
        limits=ranges.limits(schema, score),
        reasons=list(zip_longest(row.get("reasons") or [], row.get("codes") or [], fillvalue="")),
        why=why,
        no_why=no_why,
        result="not replayable" if because else "differs" if differences else "equal",
        because=because,
        differences=differences,
        made=_moment(now.replace(microsecond=0)),
        others=others,
    )


def _facts(row: dict[str, Any]) -> dict[str, str]:
    """Where the decision comes from, by what people call it."""
    rows = f", among {row['rows']} records that were answered together" if row["rows"] > 1 else ""
    return {
        "release": row["release"] or "outside Kubernetes",
        "bundle's digest": row["digest"],
        "engine": f"{row['engine']}{rows}",
        "versions": row["versions"],
        "request": f"{row['request_id']}, record {row['row']}" if row["request_id"] else "",
        "source": row["source"],
    }


def _values(schema: Schema, logged: dict[str, Any]) -> list[Value]:
    return [_value(field, logged, field.name in schema.fields_read) for field in schema.record]


def _value(field: Field, logged: dict[str, Any], seen: bool) -> Value:
    value = "" if field.logged == "drop" else _text(logged.get(field.name), field.type)
    notes = [_NOTES.get(field.logged, ""), "" if seen else "not seen by the model"]
    return Value(field.name, value, field.unit or "", field.description or "", "; ".join(filter(None, notes)))


def _text(value: Any, kind: str = "number") -> str:
    """A logged value for people."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if kind == "timestamp" and isinstance(value, float):
        return _moment(moment(value))
    if isinstance(value, date):
        return value.isoformat()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _moment(time: datetime) -> str:
    exact = time.astimezone(UTC).isoformat(sep=" ", timespec="microseconds").removesuffix("+00:00")
    return f"{exact.rstrip('0').rstrip('.')} UTC" if "." in exact else f"{exact} UTC"


def _why(replayer: Replayer, batch: pa.RecordBatch, row: dict[str, Any]) -> tuple[Why | None, str]:
    """The contributions; without them, why there are none."""
    hidden = replayer.hidden(batch.schema)
    if hidden:
        return None, hidden
    try:
        contributions = replayer.contributions(batch)
    except InvalidRequest as error:
        return None, str(error)
    if contributions is None:
        return None, "the model gives no contributions to a score"
    return _summed(replayer, batch, row, contributions), ""


def _summed(replayer: Replayer, batch: pa.RecordBatch, row: dict[str, Any], contributions: Array) -> Why:
    """The contributions of a record, with those of one source summed."""
    schema, model = replayer.bundle.schema, replayer.bundle.manifest.model
    *each, base = contributions[0].astype(float).tolist()
    sums: dict[str, float] = {}
    for feature, amount in zip(model.features, each, strict=True):
        name = feature.source or feature.name
        sums[name] = sums.get(name, 0.0) + amount
    shown = _features(replayer, batch)
    texts = schema.outputs.reasons.texts if schema.outputs.reasons else {}
    pushes = [Push(name, texts.get(name, ""), shown.get(name, ""), amount) for name, amount in sums.items()]
    pushes.sort(key=lambda push: -abs(push.amount))
    return Why(pushes, base, base + sum(each), _scale(replayer, row))


def _features(replayer: Replayer, batch: pa.RecordBatch) -> dict[str, str]:
    """The features' values in words: fields as in the record, and what is derived from them."""
    schema = replayer.bundle.schema
    (logged,) = batch.column("record").to_pylist()
    made = replayer.derived(batch)
    shown = {}
    for feature in schema.features:
        if isinstance(feature, Derived):
            unit = " days" if feature.days_between else ""
            shown[feature.name] = f"{_rounded(made[feature.name][0])}{unit}"
        else:
            field = schema.fields[feature]
            shown[feature] = f"{_text(logged[feature], field.type)} {field.unit or ''}".rstrip()
    return shown


def _rounded(value: Any) -> str:
    return "missing" if math.isnan(value) else f"{float(value):.6g}"


def _scale(replayer: Replayer, row: dict[str, Any]) -> str:
    """What contributions add up to."""
    schema, model = replayer.bundle.schema, replayer.bundle.manifest.model
    decision = schema.outputs.decision
    of = decision.score if decision and decision.score != MARGIN else row.get("label") or ""
    if MARGIN in model.outputs:
        return f"the margin of {of}, which becomes the score" if of else "the margin"
    return f"the probability of {of}" if schema.outputs.classes else "the score"
