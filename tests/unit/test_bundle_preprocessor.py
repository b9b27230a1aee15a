from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, PowerTransformer, StandardScaler
from xgboost import XGBClassifier

import tabserve.bundle
import tabserve.train
from tabserve import engines
from tabserve.bundle import Bundle, BundleError
from tabserve.schema import features as schema_features
from tests.unit.bundles import records, schema, target

ALL = ("amount", "country", "income", "age")


def mixed() -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_column_transformer((OneHotEncoder(), ["country"]), (numbers, ["amount", "income", "age"]))


def preprocessed(
    folder: Path, preprocessor: Any, model: Any = None, fields: tuple[str, ...] = ("amount", "age"), **options: Any
) -> Bundle:
    """A bundle with a preprocessor and a model, both fitted here."""
    path = schema(folder, fields=fields)
    made = preprocessor.fit_transform(tabserve.train.features(path, records()))
    model = (model or LogisticRegression()).fit(made, target("binary"))
    options = {"name": "m", "version": "1", "schema": path, "sample": records(), **options}
    return tabserve.train.save(model, folder / "bundle", preprocessor=preprocessor, **options)


@pytest.mark.parametrize("model", [LogisticRegression(), XGBClassifier(n_estimators=10)])
def test_records_become_the_models_matrix(tmp_path: Path, model: Any) -> None:
    fitted = mixed()
    bundle = preprocessed(tmp_path, fitted, model, ALL)
    assert bundle.manifest.preprocessor is not None
    assert bundle.manifest.preprocessor.format == "onnx"
    columns = schema_features.derive(bundle.schema, bundle.reference.records)
    matrix = engines.load_preprocessor(bundle)(columns)
    expected = fitted.transform(tabserve.train.features(tmp_path / "schema.yaml", records()))
    np.testing.assert_allclose(matrix, expected, rtol=1e-6, atol=1e-6)
    assert matrix.dtype == (np.float64 if isinstance(model, LogisticRegression) else np.float32)
    answers = engines.load(bundle).select(len(matrix), ["predict_proba"]).run(matrix, ["predict_proba"])
    np.testing.assert_allclose(answers["predict_proba"], model.predict_proba(expected), atol=1e-6)


def test_features_know_the_field_they_come_from(tmp_path: Path) -> None:
    bundle = preprocessed(tmp_path, mixed(), fields=ALL)
    sources = [spec.source for spec in bundle.manifest.model.features]
    assert sources == ["country"] * 3 + ["amount", "income", "age"]
    assert bundle.manifest.model.features[0].name == "onehotencoder__country_DE"


def test_features_of_several_fields_have_no_source(tmp_path: Path) -> None:
    bundle = preprocessed(tmp_path, PCA(n_components=2))
    assert [spec.source for spec in bundle.manifest.model.features] == ["", ""]


def test_an_onnx_preprocessor_loads_no_scikit_learn(tmp_path: Path) -> None:
    bundle = preprocessed(tmp_path, mixed(), fields=ALL)
    code = (
        "import sys, tabserve.bundle; from tabserve import engines; from tabserve.schema import features\n"
        "bundle = tabserve.bundle.load(sys.argv[1])\n"
        "made = engines.load_preprocessor(bundle)(features.derive(bundle.schema, bundle.reference.records))\n"
        "print(made.shape, sorted({'sklearn', 'xgboost', 'pandas', 'scipy', 'skops'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle.path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(700, 6) []"


def test_what_does_not_convert_faithfully_is_kept_as_skops(tmp_path: Path) -> None:
    fitted = PowerTransformer()
    bundle = preprocessed(tmp_path, fitted)
    info = bundle.manifest.preprocessor
    assert info is not None
    assert info.format == "skops"
    assert info.notes[0].startswith("onnx: not converted: ")
    columns = schema_features.derive(bundle.schema, bundle.reference.records)
    expected = fitted.transform(tabserve.train.features(tmp_path / "schema.yaml", records()))
    np.testing.assert_allclose(engines.load_preprocessor(bundle)(columns), expected)


def test_bins_at_their_very_edges_agree(tmp_path: Path) -> None:
    bundle = preprocessed(tmp_path, KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"))
    columns = schema_features.derive(bundle.schema, bundle.reference.records)
    assert set(np.unique(engines.load_preprocessor(bundle)(columns))) == {0.0, 1.0, 2.0, 3.0}


def test_a_preprocessor_that_can_not_take_missing_values_is_refused(tmp_path: Path) -> None:
    path = schema(tmp_path, fields=("amount", "income"))
    made = PCA(n_components=1).fit(tabserve.train.features(path, records()).fillna(0.0))
    model = LogisticRegression().fit(np.zeros((4, 1)), [0, 1, 0, 1])
    with pytest.raises(BundleError, match="fails on records the schema permits"):
        tabserve.train.save(
            model, tmp_path / "b", preprocessor=made, name="m", version="1", schema=path, sample=records()
        )


def test_a_bundle_without_one_says_so(tmp_path: Path) -> None:
    from tests.unit.bundles import saved

    with pytest.raises(BundleError, match="this bundle has none"):
        engines.load_preprocessor(saved(LogisticRegression(), tmp_path))
