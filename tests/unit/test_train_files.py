"""Models in files of XGBoost, old and new; `xgboost_files/write.py` wrote the old ones, and what they answer."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from xgboost import XGBClassifier

from tabserve.bundle import BundleError
from tests.selection import often
from tests.unit.served import answers, assert_serves, save

FILES = Path(__file__).parent / "xgboost_files"
QUICK = {("1.7.6", "ubj"), ("3.0.5", "json")}
OLD = often(product(("1.7.6", "2.1.4", "3.0.5"), ("json", "ubj")), QUICK)
"""Versions of XGBoost, and the endings of their files."""
SCHEMA = """
task: binary
record:
  - {name: a, type: number, required: false}
  - {name: b, type: number, required: false}
  - {name: c, type: category, values: [z, y, x]}
features: [a, b, c]
outputs: {classes: [calm, wild], reasons: {top: 1}}
"""
RECORDS = pd.DataFrame(json.loads((FILES / "records.json").read_text()))


def expected(version: str, kind: str) -> Any:
    return json.loads((FILES / f"{version}-answers.json").read_text())[kind]


@pytest.mark.parametrize(("version", "ending"), OLD)
def test_a_file_of_an_old_booster_is_served(version: str, ending: str, tmp_path: Path) -> None:
    """The file has no categories; their order is `astype("category")`'s, as its covers show."""
    bundle = save(FILES / f"{version}-booster.{ending}", tmp_path, SCHEMA, RECORDS)
    assert bundle.manifest.model.features[2].values == ("x", "y", "z")
    wanted = expected(version, "booster")
    for found in answers(bundle, RECORDS, ["predict_proba"]).values():
        np.testing.assert_allclose(found["predict_proba"][: len(wanted), 1], wanted, atol=1e-6)


@pytest.mark.parametrize(("version", "ending"), OLD)
def test_a_file_of_an_old_classifier_stops_where_it_did(
    version: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(FILES / f"{version}-classifier.{ending}")
    with pytest.raises(BundleError, match=r'Pass codes=\{"c": \[...\]\} to save'):
        save(path, tmp_path, SCHEMA, RECORDS)
    capsys.readouterr()
    bundle = save(path, tmp_path, SCHEMA, RECORDS, codes={"c": ["y", "z", "x"]})
    assert capsys.readouterr().out == "1 of 3 boosting rounds are served, the best of them 1.\n"
    wanted = expected(version, "classifier")
    for found in answers(bundle, RECORDS, ["predict_proba"]).values():
        np.testing.assert_allclose(found["predict_proba"][: len(wanted), 1], wanted, atol=1e-6)


def test_a_file_of_this_xgboost_is_served_whatever_its_name(tmp_path: Path) -> None:
    given = RECORDS.assign(c=RECORDS.c.astype("category"))
    model = XGBClassifier(n_estimators=5, enable_categorical=True).fit(given, RECORDS.a > 0)
    for name in ("model.json", "model.ubj", "model.txt"):
        model.save_model(tmp_path / "model.ubj")
        path = tmp_path / name
        path.write_bytes((tmp_path / "model.ubj").read_bytes())
        assert_serves(save(path, tmp_path, SCHEMA, RECORDS), RECORDS, {"predict_proba": model.predict_proba(given)})


def test_the_former_binary_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"old binary format.* Write it again with the XGBoost that wrote it"):
        save(FILES / "1.7.6-binary.model", tmp_path, SCHEMA, RECORDS)


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (b"", "expected a model file, got unknown content"),
        (b"hello", "expected a model file, got unknown content"),
        (b'{"a": 1}', "not a model that XGBoost can read: "),
        (b'{"learner": {"gradient_booster": 3}}', "not a model that XGBoost can read: "),
        (b"{L\x00\x00\x00\x00\x00\x00\x00\x00", "not a model that XGBoost can read: "),
        (b"PK\x03\x04", "expected a model file, got skops content"),
    ],
)
def test_a_file_that_is_no_model_is_refused(contents: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(contents)
    with pytest.raises(BundleError, match=problem) as told:
        save(path, tmp_path, SCHEMA, RECORDS)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "bundle").exists()


def test_half_a_file_a_pickle_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    whole = (FILES / "3.0.5-booster.ubj").read_bytes()
    (tmp_path / "half.ubj").write_bytes(whole[: len(whole) // 2])
    joblib.dump([1], tmp_path / "model.pkl")
    problems = {
        "half.ubj": "not a model that",
        "model.pkl": "a pickle, which runs",
        ".": "cannot be read",
        "no": "cannot",
    }
    for name, problem in problems.items():
        with pytest.raises(BundleError, match=problem):
            save(tmp_path / name, tmp_path, SCHEMA, RECORDS)
