"""A first schema.yaml, drafted from the signature that MLflow stores with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tabserve.bundle.errors import BundleError
from tabserve.schema.schema import Task

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
_MOST_VALUES = 256


def draft(
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
    fields = [_field(column, sample.get(column["name"], ())) for column in columns]
    times = [field["name"] for field in fields if field["type"] == "timestamp"]
    lines = [f"task: {guess}" + ("" if task else "  # guessed; or another of binary, multiclass, regression, anomaly")]
    lines += ["record:", *(f"  - {_flow(field)}" for field in fields)]
    lines += [f"features: {_flow([field['name'] for field in fields if field['name'] not in times])}"]
    lines += [f"# `{name}` is not a feature by itself: add {{name: …, hour_of: {name}}} or similar" for name in times]
    return "\n".join(lines) + "\n"


def _field(column: Mapping[str, Any], values: Sequence[str]) -> dict[str, Any]:
    kind = _TYPES.get(column["type"])
    if kind is None:
        known = ", ".join(_TYPES)
        problem = f"`{column['name']}`: expected one of the types {known}, got {column['type']}"
        raise BundleError("signature", problem, "Log the model with a signature of such columns only.")
    field: dict[str, Any] = {"name": column["name"], "type": kind}
    known_values = sorted({value for value in values if value})
    if kind == "category" and 0 < len(known_values) <= _MOST_VALUES:
        field["values"] = known_values
    elif kind == "category":
        field["type"] = "text"
    if not column.get("required", True):
        field["required"] = False
    return field


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return str(text).strip()
