"""Say everything in a sample that does not fit its schema, field by field, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tabserve.inference.errors import InvalidRequest
from tabserve.schema.columns import expectation, shown
from tabserve.schema.misfits import nearest
from tabserve.schema.records import Records
from tabserve.schema.schema import OTHER, Field, Schema

_SHOWN = 3
_OTHER_FEATURE = Field("·", "number", required=False)


def found(schema: Schema, records: Sequence[Mapping[str, Any]], others: Collection[str]) -> list[str]:
    """A line for each field that some record does not fit; records count from 0.

    others: names in the sample that are no fields, one of which may have been meant.
    """
    return [line for field in schema.record for line in _of_field(field, records, others)]


def _of_field(field: Field, records: Sequence[Mapping[str, Any]], others: Collection[str]) -> Iterator[str]:
    fits = _Fits(field)
    values = [record.get(field.name) for record in records]
    wrong = [at for at, value in enumerate(values) if value is not None and not fits(value)]
    if wrong:
        got = ", ".join(list(dict.fromkeys(shown(values[at]) for at in wrong))[:_SHOWN])
        where = _where(wrong, len(records))
        yield f"`{field.name}`: expected {expectation(field)}, got {got} {where}. {_remedy(field, values, wrong)}"
    missing = [at for at, value in enumerate(values) if value is None]
    if field.required and missing:
        hint = nearest(field.name, others) if len(missing) == len(records) else ""
        where = _where(missing, len(records))
        yield f"`{field.name}`: missing {where}{hint}. Give it a value there, or say `required: false`"


class _Fits:
    """Whether a value alone fits a field."""

    def __init__(self, field: Field) -> None:
        alone = Schema("regression", (field, _OTHER_FEATURE), (_OTHER_FEATURE.name,))
        self._records, self._name = Records(alone), field.name

    def __call__(self, value: Any) -> bool:
        try:
            self._records.convert([{self._name: value}])
        except InvalidRequest:
            return False
        return True


def _where(places: Sequence[int], total: int) -> str:
    if 1 < len(places) == total:
        return "in every record"
    others = len(places) - 1
    return f"in record {places[0]}" + (f" and {others} other{'s' if others > 1 else ''}" if others else "")


def _remedy(field: Field, values: Sequence[Any], wrong: Sequence[int]) -> str:
    got = [values[at] for at in wrong]
    if field.type == "category" and all(isinstance(value, str) for value in got):
        return f"Add what is missing to `values`, or {OTHER} with `unknown: other`"
    if field.type in ("number", "integer") and all(_is_number(value) for value in got):
        bounds = {"min": min(got) < field.bounds[0], "max": max(got) > field.bounds[1]}
        beyond = [f"`{key}`" for key, is_beyond in bounds.items() if is_beyond]
        whole = field.type == "integer" and any(value != int(value) for value in got)
        mends = ([f"change {' and '.join(beyond)}"] if beyond else []) + (["say `type: number`"] if whole else [])
        return f"Correct the records, or {' and '.join(mends)}"
    if field.type == "text" and all(isinstance(value, str) for value in got):
        return f"Shorten it, or say `max_length: {max(map(len, got))}`"
    if field.type == "date" and all(isinstance(value, str) for value in got):
        return "Leave out the time of day, or say `type: timestamp`"
    return "Correct the records, or change the `type`"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
