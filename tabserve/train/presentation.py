"""Find how to give a model its features: each way is compared with its answers about the user's own table."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import Dtype, FeatureSpec, Frame
from tabserve.bundle.reference import Columns
from tabserve.engines import parity, skops_types
from tabserve.engines.estimators import presenter
from tabserve.engines.preprocessor import given
from tabserve.train.own import Rows

if TYPE_CHECKING:
    import pandas

TOLERANCE = 1e-6
_MIXED = 64
_RETRAIN = "Train it on tabserve.train.features(schema, records), and give the same records as the sample."
FAILURES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError)
"""The exceptions that models, XGBoost's too, raise for a table they were not trained on."""

Ask: TypeAlias = Callable[[Any], dict[str, Array]]
"""A call for a model's answers about a table, by the names of a bundle's outputs. Raises what the model raises."""


class Truth(msgspec.Struct, frozen=True):
    """Some rows, the table of them that the model understands, and its answers about that table."""

    what: str
    columns: Columns
    table: Any
    answers: dict[str, Array]


class Presentation(msgspec.Struct, frozen=True):
    """A way to give a model its features: `frame` and the specs' dtypes, as in the manifest."""

    frame: Frame
    features: tuple[FeatureSpec, ...]

    def table(self, columns: Columns) -> Any:
        """The model's table, made from feature columns."""
        return presenter(self.features, self.frame)(given(self.features, self.frame, columns))


def truths(model: Any, ask: Ask, specs: Sequence[FeatureSpec], rows: Sequence[Rows], *, named: bool) -> list[Truth]:
    """The model's answers about the user's own table of the sample, and of the other rows that the schema permits.

    The sample is the training data, so the table is the first likely one in which the model's encoders know every
    category. If there is none, it is the first that the model answers about. Raises BundleError if that fails too.
    """
    tables = [_tables(some, specs, named) for some in rows]
    with _refusing_unknown(model):
        chosen, _ = _first(ask, tables[0])
    if chosen is None:
        chosen, problem = _first(ask, tables[0])
    if chosen is None:
        raise _failing(problem, ask, rows[0], tables[0])
    return [_truth(ask, some, of[chosen]) for some, of in zip(rows, tables, strict=True)]


def takes_codes(model: Any, ask: Ask, specs: Sequence[FeatureSpec], rows: Rows, *, named: bool) -> bool:
    """Whether the only table of the rows that a model takes is one with numbers in place of categories."""
    tables = _tables(rows, specs, named)
    if not _may_be_codes(specs):
        return False
    with _refusing_unknown(model):
        chosen, _ = _first(ask, tables)
    return _first(ask, tables)[0] == len(tables) - 1 if chosen is None else chosen == len(tables) - 1


def range_of(ask: Ask, way: Presentation, columns: Columns) -> Literal["", "FP32"]:
    """FP32 if the model, or a step before it, refuses numbers too large for FP32. columns: a row that it answers."""
    floats = [spec.name for spec in way.features if spec.type == "number" and "int" not in spec.dtype.lower()]
    for large in (1e39, 1e308):
        row = {name: np.full(1, large) if name in floats else column[:1] for name, column in columns.items()}
        if _first(ask, [way.table(row)])[0] is None:
            return "FP32"
    return ""


def codes(specs: Sequence[FeatureSpec], columns: Columns, *, named: bool) -> Any:
    """The table for a model that takes numbers in place of categories: their positions in the specs' values."""
    matrix = given(specs, "", columns)
    return presenter(_numeric(specs), "object")(matrix) if named else matrix


def find(
    ask: Ask, specs: Sequence[FeatureSpec], rows: Sequence[Rows], known: Sequence[Truth], *, named: bool
) -> Presentation:
    """The simplest presentation in which the model answers as it does about the user's own tables.

    If there is none, raises BundleError naming the columns that cause it.
    """
    known = [*known, *_mixed(known)]
    own = next((one for one in (known[0].table, rows[0].frames[0]) if hasattr(one, "iloc")), None)
    ways = list(_ways(specs, own, named))
    for way in ways:
        if all(_gap(ask, way.table, truth) <= TOLERANCE for truth in known):
            return way
    raise _refusal(ask, ways[-1], known)


def _tables(rows: Rows, specs: Sequence[FeatureSpec], named: bool) -> list[Any]:
    """The tables of the rows that the model may have been given: arrays if it has no names; codes come last."""
    tables = list(rows.frames)
    if not named:
        frames = [one for one in tables if hasattr(one, "iloc")]
        tables = [*(array for one in frames for array in (one.to_numpy(), one.to_numpy(object))), *tables]
    if _may_be_codes(specs):
        tables.append(codes(specs, rows.columns, named=named))
    return tables


def _may_be_codes(specs: Sequence[FeatureSpec]) -> bool:
    return {spec.type for spec in specs} in ({"category"}, {"category", "number"})


def _numeric(specs: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    return [FeatureSpec(spec.name, "number") for spec in specs]


def _first(ask: Ask, tables: Sequence[Any]) -> tuple[int | None, str]:
    """The first table that the model answers about, and its error about the first that it does not."""
    problem = ""
    for at, table in enumerate(tables):
        try:
            quietly(ask, table)
        except FAILURES as error:
            problem = problem or first_line(error)
        else:
            return at, problem
    return None, problem


def _truth(ask: Ask, rows: Rows, table: Any) -> Truth:
    try:
        return Truth(rows.what, rows.columns, table, quietly(ask, table))
    except FAILURES as error:
        problem = f"fails on records the schema permits ({rows.what}): {first_line(error)}"
        raise BundleError("model", problem, rows.remedy) from error


def quietly(ask: Ask, table: Any) -> dict[str, Array]:
    """The model's answers, without its warnings. Raises whatever the model raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ask(table)


def first_line(error: Exception) -> str:
    """The first line of an error, without its full stop; the error's type if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _failing(problem: str, ask: Ask, rows: Rows, tables: Sequence[Any]) -> BundleError:
    """The error for a model that fails on the sample; missing values are the cause if it takes the other rows."""
    complete = rows.complete
    if complete.any() and not complete.all() and _first(ask, [table[complete] for table in tables])[0] is not None:
        return BundleError("model", f"fails on records the schema permits: {problem}", rows.remedy)
    remedy = "Train the model on the schema's features, or change the schema."
    return BundleError("model", f"fails on the sample: {problem}", remedy)


@contextlib.contextmanager
def _refusing_unknown(model: Any) -> Iterator[None]:
    """Make every encoder of scikit-learn refuse unknown categories, whatever its own setting.

    The sample is the training data. So an unknown category in it (None where NaN was learnt, "1.0" where "1" was) shows
    that the model was given another table.
    """
    from sklearn.preprocessing._encoders import _BaseEncoder

    encoders = [part for _, part in skops_types.parts(model) if isinstance(part, _BaseEncoder)]
    for encoder in encoders:
        encoder._transform = partial(_refusing, encoder)
    try:
        yield
    finally:
        for encoder in encoders:
            del encoder._transform


def _refusing(encoder: Any, table: Any, **options: Any) -> Any:
    return type(encoder)._transform(encoder, table, **{**options, "handle_unknown": "error"})


def _mixed(known: Sequence[Truth]) -> list[Truth]:
    """Rows of all kinds in one batch, which must not change how a single row is given."""
    if len(known) == 1:
        return []
    some = slice(0, _MIXED)
    columns = {name: np.concatenate([truth.columns[name][some] for truth in known]) for name in known[0].columns}
    answers = {name: np.concatenate([truth.answers[name][some] for truth in known]) for name in known[0].answers}
    return [Truth("rows of all these kinds in one batch", columns, None, answers)]


def _ways(specs: Sequence[FeatureSpec], own: Any, named: bool) -> Iterator[Presentation]:
    """The possible presentations, the cheapest first and the user's own dtypes last."""
    plain = tuple(specs)
    none = tuple(msgspec.structs.replace(spec, missing="none") for spec in specs)
    alike = plain if own is None else tuple(_looked(spec, own[spec.name]) for spec in specs)
    if not named:
        yield from (Presentation("", plain), Presentation("array", plain), Presentation("array", none))
    yield from (Presentation("object", plain), Presentation("object", none), Presentation("category", plain))
    yield Presentation("object", tuple(_code(spec) if spec.type == "category" else spec for spec in specs))
    if not named:
        yield Presentation("array", alike)
    yield Presentation("object", alike)


def _code(spec: FeatureSpec) -> FeatureSpec:
    return msgspec.structs.replace(spec, dtype="float64")


def _looked(spec: FeatureSpec, column: pandas.Series[Any]) -> FeatureSpec:
    """The spec, with a column's dtype and marker of missing values."""
    missing = "none" if any(value is None for value in column) else "nan"
    if spec.type == "number":
        return msgspec.structs.replace(spec, dtype=_number(column), missing=missing)
    if column.dtype != "category" or spec.type == "text":
        return msgspec.structs.replace(spec, dtype="string" if column.dtype == "string" else "object", missing=missing)
    values = tuple(dict.fromkeys([*map(str, column.cat.categories), *spec.values]))
    return msgspec.structs.replace(spec, dtype="category", values=values)


def _number(column: pandas.Series[Any]) -> Dtype:
    from pandas.api import types

    nullable = types.is_extension_array_dtype(column.dtype)
    if column.dtype == object:
        kinds: dict[type, Dtype] = {bool: "object[bool]", int: "object[int]"}
        return kinds.get(type(next(iter(column.dropna()), None)), "object[float]")
    if types.is_bool_dtype(column.dtype):
        return "boolean" if nullable else "bool"
    if types.is_integer_dtype(column.dtype):
        return "Int64" if nullable else "int64"
    if nullable:
        return "Float64"
    return "float64" if column.dtype == np.float64 else "float32"


def _gap(ask: Ask, present: Callable[[Columns], Any], truth: Truth) -> float:
    """The gap between the answers and the truth; infinite if there are no answers."""
    try:
        answers = quietly(ask, present(truth.columns))
    except FAILURES:
        return np.inf
    return max(parity.differences(answers, truth.answers).values())


def _refusal(ask: Ask, way: Presentation, known: Sequence[Truth]) -> BundleError:
    """The error for a model that answers differently in every way that it can be served."""
    truth = next((one for one in known if _gap(ask, way.table, one) > TOLERANCE), known[0])
    table = way.table(truth.columns)
    causes = [_differs(spec, truth.table, table) for spec in way.features if _moves(ask, spec, truth, table)]
    which = "; ".join(causes) or "no single column is the cause"
    gap = _gap(ask, way.table, truth)
    problem = f"answers {truth.what} differently when served, by up to {gap:.3g}: {which}"
    return BundleError("model", problem, _RETRAIN)


def _moves(ask: Ask, spec: FeatureSpec, truth: Truth, table: Any) -> bool:
    """Whether a single column in its served form changes the answers."""
    if not hasattr(truth.table, "iloc") or not hasattr(table, "iloc"):
        return False
    changed = truth.table.assign(**{spec.name: table[spec.name].set_axis(truth.table.index)})
    return _gap(ask, lambda _: changed, truth) > TOLERANCE


def _differs(spec: FeatureSpec, own: Any, table: Any) -> str:
    return f"`{spec.name}` was {_described(own[spec.name])} in training and would be {_described(table[spec.name])}"


def _described(column: pandas.Series[Any]) -> str:
    absent = column[column.isna()]
    return f"{column.dtype}{f' with {absent.iloc[0]} where missing' if len(absent) else ''}"
