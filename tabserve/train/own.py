"""The sample as the user has it: the tables a model may have been trained on, and what the services make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import agreement
from tabserve.bundle.manifest import Dtype, FeatureSpec
from tabserve.bundle.reference import MAX_ROWS, Columns
from tabserve.engines.tables import table
from tabserve.schema.schema import Derived, Schema

if TYPE_CHECKING:
    import pandas

_OF_EACH = 8
_BLANKED = 16
_MOST_VALUES = 256


class Rows(msgspec.Struct, frozen=True):
    """Some rows: the services' features, and the tables that the model may have been given.

    what, remedy: for errors, what the rows are, and what to do if the model fails on them. frames: the tables, the
    likeliest first, each with the same rows.
    """

    what: str
    columns: Columns
    frames: tuple[Any, ...]
    remedy: str = "Train it for missing values, or make the fields required."

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))

    @property
    def complete(self) -> Array:
        """Which rows have every value."""
        return ~np.any([missing(column) for column in self.columns.values()], axis=0)


def rows(schema: Schema, sample: Any, features: Columns) -> list[Rows]:
    """Up to 1,000 rows of the sample, including what is rare in it; then rows that it lacks and the schema permits.

    The latter are rows without a value that may be missing, and rows with a category that is in no record.
    """
    specs = agreement.specs(schema)
    picked = _picked(specs, features)
    columns = {name: column[picked] for name, column in features.items()}
    frame = _frame(schema, sample, columns, picked)
    frames = (*_marked(frame, specs, sample), served(schema, columns), table(specs, "category")(columns))
    first = Rows("rows of the sample", columns, frames)
    return [first, *_blanked(schema, features, first), *_unseen(specs, features, first)]


def served(schema: Schema, columns: Columns) -> pandas.DataFrame:
    """The features as a DataFrame to train on: categories in the schema's order, whole numbers and booleans as such."""
    made: pandas.DataFrame = table(natural(schema, columns), "category")(columns)
    return made


def natural(schema: Schema, columns: Columns) -> tuple[FeatureSpec, ...]:
    """The features with pandas' dtype for their type; it has none for whole numbers some of which are missing."""
    dtypes: dict[str, Dtype] = {"integer": "int64", "boolean": "bool"}
    types = {field.name: field.type for field in schema.record}
    return tuple(
        msgspec.structs.replace(spec, dtype=dtypes[types[spec.name]])
        if types.get(spec.name) in dtypes and not missing(columns[spec.name]).any()
        else spec
        for spec in agreement.specs(schema)
    )


def missing(column: Array) -> Array:
    """Where a feature's column has no value."""
    return np.array([value is None for value in column], bool) if column.dtype == object else np.isnan(column)


def evenly(columns: Columns) -> Array:
    """The positions of up to 1,000 rows, spread evenly."""
    count = len(next(iter(columns.values())))
    return np.linspace(0, count - 1, min(count, MAX_ROWS)).astype(np.intp)


def _picked(specs: Sequence[FeatureSpec], features: Columns) -> Array:
    """The positions of rows spread evenly over the sample, and of some with each category and each missing value."""
    picked = [evenly(features)]
    for spec in specs:
        column = features[spec.name]
        picked.append(np.flatnonzero(missing(column))[:_OF_EACH])
        if spec.type == "category":
            values = column.astype(str)
            picked += [np.flatnonzero(values == value)[:_OF_EACH] for value in np.unique(values)[:_MOST_VALUES]]
    return np.unique(np.concatenate(picked))


def _frame(schema: Schema, sample: Any, columns: Columns, picked: Array) -> pandas.DataFrame:
    """The picked rows' features as the sample holds them; derived and filled-in values are the services' own."""
    import pandas

    made, given = served(schema, columns), {}
    for spec in agreement.specs(schema):
        column = _given(sample, spec.name, picked)
        given[spec.name] = made[spec.name] if column is None else _filled(column, made[spec.name])
    return pandas.DataFrame(given)


def _given(sample: Any, name: str, picked: Array) -> Any:
    """One column of the sample as it is, None if the sample does not have it."""
    import pandas

    if not hasattr(sample, "keys"):
        return pandas.Series([sample[at].get(name) for at in picked]) if name in sample[0] else None
    if name not in sample:
        return None
    if isinstance(sample[name], pandas.Series):
        return sample[name].iloc[picked].reset_index(drop=True)
    return pandas.Series(sample[name]).iloc[picked].reset_index(drop=True)


def _filled(given: Any, made: Any) -> Any:
    """A column of the sample, with the schema's default or `other` filled in."""
    absent, default = given.isna(), ~made.isna()
    other = ~absent & default & (made == "other") & (given.astype(str) != "other")
    replaced = (absent & default) | other
    if not replaced.any():
        return given
    if given.dtype == "category":
        given = given.cat.set_categories(given.cat.categories.union(made[replaced].unique(), sort=False))
    return given.mask(replaced, made.astype(object)).infer_objects()


def _marked(frame: pandas.DataFrame, specs: Sequence[FeatureSpec], sample: Any) -> Sequence[Any]:
    """The frame as it is, and with the other markers for missing categories.

    Records that are not a DataFrame have None for everything missing, where scikit-learn and pandas have NaN.
    """
    texts = [spec.name for spec in specs if spec.type == "category" and frame[spec.name].dtype == object]
    absent = {name: frame[name].isna() for name in texts if frame[name].isna().any()}
    if not absent:
        return (frame,)
    both = [
        frame.assign(**{name: _with(frame[name], at, marker) for name, at in absent.items()})
        for marker in (np.nan, None)
    ]
    return (frame, *both) if hasattr(sample, "iloc") else both


def _with(column: Any, missing: Any, marker: Any) -> Any:
    import pandas

    return pandas.Series(np.where(missing, np.array(marker, object), column), dtype=object)


def _blanked(schema: Schema, features: Columns, first: Rows) -> Iterator[Rows]:
    """Rows without an optional value, for each feature that the sample always has."""
    for spec in agreement.specs(schema):
        if spec.name in schema.may_miss and not missing(features[spec.name]).any():
            some = _head(first, _BLANKED)
            nothing = np.full(some.count, None if spec.type == "category" else np.nan, some.columns[spec.name].dtype)
            yield Rows(
                f"rows without `{spec.name}`, which may be missing",
                {**some.columns, spec.name: nothing},
                tuple(frame.assign(**{spec.name: _blank(frame[spec.name])}) for frame in some.frames),
                _how_never_to_miss(schema, spec.name),
            )


def _how_never_to_miss(schema: Schema, name: str) -> str:
    """What to do about a model that fails on a missing value of a feature."""
    always = "make the field required, or give it a default"
    for feature in schema.features:
        if isinstance(feature, Derived) and feature.name == name:
            sources = " and ".join(f"`{source}`" for sources in feature.rules.values() for source in sources)
            always = f"make {sources} required"
            if not feature.is_defined(schema.fields):
                *_, last = sources.rpartition(" ")
                always += f", with a `min` above 0 for {last}"
    return f"Train it on records without `{name}`, or {always}."


def _unseen(specs: Sequence[FeatureSpec], features: Columns, first: Rows) -> Iterator[Rows]:
    """Rows with the categories that no record of the sample has, one row each."""
    for spec in specs:
        values = sorted(set(spec.values) - set(features[spec.name].tolist()))[:_MOST_VALUES]
        if values:
            some = _repeated(first, len(values))
            yield Rows(
                f"rows with `{spec.name}` of {', '.join(values[:3])}, which the sample lacks",
                {**some.columns, spec.name: np.array(values, object)},
                tuple(frame.assign(**{spec.name: _like(frame[spec.name], values)}) for frame in some.frames),
                f"Take these out of the `values` of `{spec.name}`, or train the model on records that have them.",
            )


def _like(column: Any, values: list[str]) -> Any:
    import pandas

    if column.dtype == "category":
        own = {str(value): value for value in column.cat.categories}  # they may be numbers
        made = [own.get(value, value) for value in values]
        return pandas.Categorical(made, list(dict.fromkeys([*column.cat.categories, *made])))
    return pandas.Series(values, dtype=column.dtype)


def _head(of: Rows, count: int) -> Rows:
    columns = {name: column[:count] for name, column in of.columns.items()}
    return Rows(of.what, columns, tuple(frame.iloc[:count] for frame in of.frames))


def _repeated(of: Rows, count: int) -> Rows:
    at = np.arange(count) % of.count
    columns = {name: column[at] for name, column in of.columns.items()}
    return Rows(of.what, columns, tuple(frame.iloc[at].reset_index(drop=True) for frame in of.frames))


def _blank(column: Any) -> Any:
    return column.where(np.zeros(len(column), bool))
