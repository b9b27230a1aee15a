"""How a model is given its features: every way is held against what it answers about the table its user has."""

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
"""What a model raises for a table it was not trained on, XGBoost's errors among them."""

Ask: TypeAlias = Callable[[Any], dict[str, Array]]
"""A model's answers about a table, by the names of a bundle's outputs. Raises whatever the model raises."""


class Truth(msgspec.Struct, frozen=True):
    """Some rows, the table of them that the model understands, and what it answers about that table."""

    what: str
    columns: Columns
    table: Any
    answers: dict[str, Array]


class Presentation(msgspec.Struct, frozen=True):
    """How a model is given its features: `frame` and the specs' dtypes as in the manifest."""

    frame: Frame
    features: tuple[FeatureSpec, ...]

    def table(self, columns: Columns) -> Any:
        """The model's table of feature columns."""
        return presenter(self.features, self.frame)(given(self.features, self.frame, columns))


def truths(model: Any, ask: Ask, specs: Sequence[FeatureSpec], rows: Sequence[Rows], *, named: bool) -> list[Truth]:
    """What the model answers about the user's own table of the sample, and of what the schema permits beside it.

    The table is the first of the likely ones in which its encoders know every category, else the first it answers
    about at all: the sample is what it was trained on. Raises BundleError where it answers about none.
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
    """Whether a model takes no table of the rows but one with numbers in the place of categories."""
    tables = _tables(rows, specs, named)
    if not _may_be_codes(specs):
        return False
    with _refusing_unknown(model):
        chosen, _ = _first(ask, tables)
    return _first(ask, tables)[0] == len(tables) - 1 if chosen is None else chosen == len(tables) - 1


def range_of(ask: Ask, way: Presentation, columns: Columns) -> Literal["", "FP32"]:
    """FP32 where the model, or a step before it, refuses larger numbers than that holds. columns: a row it answers."""
    floats = [spec.name for spec in way.features if spec.type == "number" and "int" not in spec.dtype.lower()]
    for large in (1e39, 1e308):
        row = {name: np.full(1, large) if name in floats else column[:1] for name, column in columns.items()}
        if _first(ask, [way.table(row)])[0] is None:
            return "FP32"
    return ""


def codes(specs: Sequence[FeatureSpec], columns: Columns, *, named: bool) -> Any:
    """The table of a model that takes numbers in the place of categories: their positions in the specs' values."""
    matrix = given(specs, "", columns)
    return presenter(_numeric(specs), "object")(matrix) if named else matrix


def find(
    ask: Ask, specs: Sequence[FeatureSpec], rows: Sequence[Rows], known: Sequence[Truth], *, named: bool
) -> Presentation:
    """The simplest presentation in which the model answers as it does about the user's own tables.

    Raises BundleError naming the columns that are the cause where there is none.
    """
    known = [*known, *_mixed(known)]
    own = next((one for one in (known[0].table, rows[0].frames[0]) if hasattr(one, "iloc")), None)
    ways = list(_ways(specs, own, named))
    for way in ways:
        if all(_gap(ask, way.table, truth) <= TOLERANCE for truth in known):
            return way
    raise _refusal(ask, ways[-1], known)


def _tables(rows: Rows, specs: Sequence[FeatureSpec], named: bool) -> list[Any]:
    """What the model may have been given of the rows; an array where it knows no names, and a category's code last."""
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
    """The first table the model answers about, and what it says about the first of those it does not."""
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
    """Its answers, without its warnings. Raises whatever the model raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ask(table)


def first_line(error: Exception) -> str:
    """What an error says, in one line without its full stop; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _failing(problem: str, ask: Ask, rows: Rows, tables: Sequence[Any]) -> BundleError:
    """What to say of a model that fails on the sample: missing values are the cause where it takes the other rows."""
    complete = rows.complete
    if complete.any() and not complete.all() and _first(ask, [table[complete] for table in tables])[0] is not None:
        return BundleError("model", f"fails on records the schema permits: {problem}", rows.remedy)
    remedy = "Train the model on the schema's features, or change the schema."
    return BundleError("model", f"fails on the sample: {problem}", remedy)


@contextlib.contextmanager
def _refusing_unknown(model: Any) -> Iterator[None]:
    """Let every encoder of scikit-learn refuse a category it was not trained on, whatever it is set to do with one.

    The sample is what the model was trained on, so a category that is unknown in it (None, where NaN was learnt; "1.0",
    where "1" was) tells that the model was given another table.
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
    """Rows of all kinds in one batch, which must not change what a row is given as."""
    if len(known) == 1:
        return []
    some = slice(0, _MIXED)
    columns = {name: np.concatenate([truth.columns[name][some] for truth in known]) for name in known[0].columns}
    answers = {name: np.concatenate([truth.answers[name][some] for truth in known]) for name in known[0].answers}
    return [Truth("rows of all these kinds in one batch", columns, None, answers)]


def _ways(specs: Sequence[FeatureSpec], own: Any, named: bool) -> Iterator[Presentation]:
    """The presentations there are, the cheapest first and the user's own dtypes last."""
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
    """The spec with the dtype and the missing marker of a column."""
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
    """How far the answers are from the truth; infinite where there are none."""
    try:
        answers = quietly(ask, present(truth.columns))
    except FAILURES:
        return np.inf
    return max(parity.differences(answers, truth.answers).values())


def _refusal(ask: Ask, way: Presentation, known: Sequence[Truth]) -> BundleError:
    """What to say of a model that answers otherwise in every way it can be served."""
    truth = next((one for one in known if _gap(ask, way.table, one) > TOLERANCE), known[0])
    table = way.table(truth.columns)
    causes = [_differs(spec, truth.table, table) for spec in way.features if _moves(ask, spec, truth, table)]
    which = "; ".join(causes) or "no single column is the cause"
    gap = _gap(ask, way.table, truth)
    problem = f"answers {truth.what} otherwise when it is served, by up to {gap:.3g}: {which}"
    return BundleError("model", problem, _RETRAIN)


def _moves(ask: Ask, spec: FeatureSpec, truth: Truth, table: Any) -> bool:
    """Whether one column, as it is served, is enough to change the answers."""
    if not hasattr(truth.table, "iloc") or not hasattr(table, "iloc"):
        return False
    changed = truth.table.assign(**{spec.name: table[spec.name].set_axis(truth.table.index)})
    return _gap(ask, lambda _: changed, truth) > TOLERANCE


def _differs(spec: FeatureSpec, own: Any, table: Any) -> str:
    return f"`{spec.name}` was {_described(own[spec.name])} in training and would be {_described(table[spec.name])}"


def _described(column: pandas.Series[Any]) -> str:
    absent = column[column.isna()]
    return f"{column.dtype}{f' with {absent.iloc[0]} where missing' if len(absent) else ''}"
