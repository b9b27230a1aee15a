"""What `save` says if a model fails on records that the schema permits; each remedy is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import tabserve.train
from tabserve.bundle import BundleError
from tests.unit.bundles import records, saved, schema, target


def only_known(table: Any, ages: list[float]) -> Any:
    """A transformer's function that takes only these values of `age`."""
    if not table["age"].isin(ages).all():
        raise ValueError("an age that was never seen\nand a second line")
    return table


def adults(table: Any) -> Any:
    """A transformer's function that takes only values of `age` from 18 to 90."""
    if not table["age"].between(18, 90).all():
        raise ValueError("no adult's age")
    return table


TRUSTED = [f"{__name__}.only_known", f"{__name__}.adults"]


def test_a_value_that_is_the_cause_is_named_with_its_column(tmp_path: Path) -> None:
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(categories=[["DE", "FR"]]), ["country"]), remainder="passthrough"),
        LogisticRegression(),
    )
    given, table = records(), schema(tmp_path, fields=("amount", "country"))
    given = given[given.country != "IT"]
    model.fit(given[["amount", "country"]], target("binary")[given.index])

    with pytest.raises(BundleError, match=r"`country` of IT, which the sample lacks.*Take these out of the `values`"):
        tabserve.train.save(model, tmp_path / "b", name="m", version="1", schema=table, sample=given)

    table.write_text(table.read_text().replace("DE, FR, IT", "DE, FR"))
    assert tabserve.train.save(model, tmp_path / "b", name="m", version="1", schema=table, sample=given)


def test_a_missing_value_is_blamed_where_it_is_the_cause(tmp_path: Path) -> None:
    given, path = records().dropna(), schema(tmp_path, fields=("amount", "income"))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(given[["amount", "income"]], target("binary")[given.index])

    saved_as: dict[str, Any] = {"name": "m", "version": "1", "schema": path, "sample": given}
    with pytest.raises(BundleError, match=r"rows without `income`, which may be missing.*make the field required"):
        tabserve.train.save(model, tmp_path / "b", **saved_as)

    path.write_text(path.read_text().replace(", required: false", ""))
    assert tabserve.train.save(model, tmp_path / "b", **saved_as).manifest.name == "m"


def test_another_cause_is_told_in_one_line_with_its_column_and_value(tmp_path: Path) -> None:
    ages = records().age.unique().tolist()
    model = make_pipeline(FunctionTransformer(only_known, kw_args={"ages": ages}), LogisticRegression())

    with pytest.raises(BundleError) as caught:
        saved(model, tmp_path, trusted=TRUSTED)

    assert caught.value.problem.startswith("fails where `age` is ")
    assert caught.value.problem.endswith(": an age that was never seen")
    assert caught.value.remedy.startswith("Give `age` the `min` and `max` that the model was trained for")


def test_the_remedy_for_numbers_works(tmp_path: Path) -> None:
    path = schema(tmp_path)
    path.write_text(
        path.read_text().replace("{name: age, type: number}", "{name: age, type: number, min: 18, max: 90}")
    )
    model = make_pipeline(FunctionTransformer(adults), LogisticRegression())
    model.fit(tabserve.train.features(path, records()), target("binary"))

    saved_as: dict[str, Any] = {"name": "m", "version": "1", "schema": path, "sample": records(), "trusted": TRUSTED}
    assert tabserve.train.save(model, tmp_path / "b", **saved_as).manifest.name == "m"


def test_a_preprocessor_is_blamed_for_what_it_fails_on(tmp_path: Path) -> None:
    table = records()[["amount", "age"]]
    preprocessor = FunctionTransformer(only_known, kw_args={"ages": table.age.unique().tolist()}).fit(table)
    model = LogisticRegression().fit(table.to_numpy(), target("binary"))

    saved_as: dict[str, Any] = {
        "name": "m",
        "version": "1",
        "schema": schema(tmp_path),
        "sample": records(),
        "trusted": TRUSTED,
    }
    with pytest.raises(BundleError, match=r"^preprocessor: fails where `age` is .*an age that was never seen"):
        tabserve.train.save(model, tmp_path / "b", preprocessor=preprocessor, **saved_as)


def test_numbers_far_beyond_the_sample_need_not_be_answered(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(np.sqrt), LogisticRegression())

    assert saved(model, tmp_path, fields=("amount", "age"))


def test_a_form_that_differs_beyond_the_sample_is_not_used(tmp_path: Path) -> None:
    """Distances of numbers as far off as float32 goes are too large for ONNX's nearest neighbours."""
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    unbounded = saved(KNeighborsClassifier(), far).manifest.model
    path = schema(near)
    path.write_text(
        path.read_text()
        .replace("min: 0", "min: 0, max: 2000")
        .replace("age, type: number", "age, type: number, min: 0, max: 120")
    )
    model = KNeighborsClassifier().fit(tabserve.train.features(path, records()), target("binary"))
    saved_as: dict[str, Any] = {"name": "m", "version": "1", "schema": path, "sample": records()}
    bounded = tabserve.train.save(model, near / "bundle", **saved_as).manifest.model

    assert (unbounded.onnx, bounded.onnx) == (None, "model.onnx")
    assert any(note.startswith("onnx: not converted: ") for note in unbounded.notes)


@pytest.mark.parametrize(
    "model", [LogisticRegression(), KNeighborsClassifier()], ids=lambda model: type(model).__name__
)
def test_what_was_never_fitted_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not fitted\..*Fit it before it is saved"):
        tabserve.train.save(model, tmp_path / "b", name="m", version="1", schema=schema(tmp_path), sample=records())
