"""A first schema.yaml, drafted from a table of records, or from the signature that MLflow stores with a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tabserve.bundle.errors import BundleError
from tabserve.schema.schema import Task
from tabserve.train import inferring
from tabserve.train.inferring import Inferred, Target
from tabserve.train.tables import Table

_TYPES = {
    "double": "number",
    "float": "number",
    "long": "integer",
    "integer": "integer",
    "boolean": "boolean",
    "string": "category",
    "datetime": "timestamp",
}
_CLASSES = ("long", "integer", "int32", "int64", "boolean", "bool", "string", "str", "object")
_GUESSED = "guessed; or another of binary, multiclass, regression, anomaly"


def of_table(table: Table, target: str | None, task: Task | None = None) -> str:
    """The text of a schema for a table's records, whose labels are in the column `target`. Raises BundleError."""
    guess = Target("binary", ()) if target is None else inferring.task(table, target)
    found = inferring.fields(table, target)
    if task is not None:
        fits = task == "multiclass" or (task == "binary" and len(guess.classes) == 2)
        guess = Target(task, guess.classes if fits else ())
    return _text(guess, found.fields, told=task is not None, identity=found.identity, notes=found.left_out)


def of_signature(
    columns: Sequence[Mapping[str, Any]],
    answers: Sequence[str],
    sample: Mapping[str, Sequence[str]],
    task: Task | None = None,
) -> str:
    """The text of a schema.

    columns: as `mlflow.signature` gives them. answers: the types of the model's outputs, from which the task is
    guessed.
    sample: values of text columns by name; a column without any is a text, because its categories are not known.
    Raises BundleError for a column that no field type fits.
    """
    guess: Task = task or ("binary" if answers and all(each in _CLASSES for each in answers) else "regression")
    fields = [Inferred(_field(column, sample.get(column["name"], ()))) for column in columns]
    return _text(Target(guess, ()), fields, told=task is not None)


def _text(
    target: Target, fields: Sequence[Inferred], *, told: bool, identity: str | None = None, notes: Sequence[str] = ()
) -> str:
    times = {one.field["name"]: one.field["type"] for one in fields if one.field["type"] in ("timestamp", "date")}
    features: list[Any] = [one.field["name"] for one in fields if one.field["name"] not in times]
    features = features or [{"name": f"month of {name}", "month_of": name} for name in times]
    lines = [f"task: {target.task}" + ("" if told else f"  # {_GUESSED}")]
    lines += [] if identity is None else [f"id: {_flow(identity)}  # different in every record"]
    lines += ["record:", *(f"  - {_flow(one.field)}{f'  # {one.note}' if one.note else ''}" for one in fields)]
    lines += [f"features: {_flow(features)}"]
    lines += [_derived(name, kind) for name, kind in times.items()] + [f"# {note}" for note in notes]
    return "\n".join(lines + _outputs(target)) + "\n"


def _derived(name: str, kind: str) -> str:
    rule = "hour_of" if kind == "timestamp" else "month_of"
    return f"# `{name}` is not a feature by itself: add {{name: …, {rule}: {name}}} or similar"


def _outputs(target: Target) -> list[str]:
    if not target.classes:
        return []
    bands = "[{from: 0.5, label: …}, {from: 0, label: …}]"
    decision = f"{{score: {_flow(target.classes[-1])}, bands: {bands}}}"
    return ["outputs:", f"  classes: {_flow(list(target.classes))}", f"  # decision: {decision}"]


def _field(column: Mapping[str, Any], values: Sequence[str]) -> dict[str, Any]:
    kind = _TYPES.get(column["type"])
    if kind is None:
        known = ", ".join(_TYPES)
        problem = f"`{column['name']}`: expected one of the types {known}, got {column['type']}"
        raise BundleError("signature", problem, "Log the model with a signature of such columns only.")
    field: dict[str, Any] = {"name": column["name"], "type": kind}
    known_values = sorted({value for value in values if value})
    if kind == "category" and 0 < len(known_values) <= inferring.MOST_VALUES:
        field["values"] = known_values
    elif kind == "category":
        field["type"] = "text"
    if not column.get("required", True):
        field["required"] = False
    return field


def _flow(value: Any) -> str:
    """A value as YAML on one line; with escapes where PyYAML would not read it back (line breaks other than \\n)."""
    text = _dumped(value, allow_unicode=True)
    return text if yaml.safe_load(text) == value else _dumped(value, allow_unicode=False)


def _dumped(value: Any, *, allow_unicode: bool) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=allow_unicode, width=math.inf)
    return str(text).removesuffix("...\n").strip()
