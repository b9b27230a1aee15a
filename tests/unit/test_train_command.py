"""`tabserve bundle save`: models in files become bundles, and every remedy is in the words of its options."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
import xgboost
from click.testing import CliRunner, Result
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import tabserve.bundle
import tabserve.train
from tabserve import extras
from tabserve.cli import main
from tabserve.train.command import in_options, opened
from tests.serving import ROOT
from tests.unit.served import assert_serves
from tests.unit.test_train_xgboost import BINARY, NUMBERS, marked

SCHEMA = """\
task: binary
id: member
record:
  - {name: amount, type: number}
  - {name: kind, type: category, values: [x, y, z]}
  - {name: floor, type: category, values: [1, 2]}
features: [amount, kind, floor]
outputs: {classes: [good, bad]}
"""


def records(count: int = 150) -> pd.DataFrame:
    random = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "member": np.arange(count),
            "amount": random.normal(50, 20, count).round(2),
            "kind": random.choice(["x", "y", "z"], count),
            "floor": random.integers(1, 3, count),
        }
    )


def target() -> Any:
    frame = records()
    return ((frame.amount + 40 * (frame.kind == "z") + 20 * (frame.floor == 2)) > 70).astype(int)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    records().assign(bad=target()).to_csv(tmp_path / "records.csv", index=False)
    return tmp_path


def save(folder: Path, model: str, *options: str) -> Result:
    files = [f"--schema={folder / 'schema.yaml'}", f"--sample={folder / 'records.csv'}", f"--into={folder / 'b'}"]
    return CliRunner().invoke(main, ["bundle", "save", str(folder / model), "--name=m", *files, *options])


def pipeline(frame: pd.DataFrame) -> Any:
    columns = make_column_transformer((OneHotEncoder(), ["kind", "floor"]), (StandardScaler(), ["amount"]))
    return make_pipeline(columns, LogisticRegression()).fit(frame, target())


@pytest.mark.parametrize("written", ["joblib", "pickle", "skops"])
def test_a_pipeline_in_a_file_is_served_as_it_answers(folder: Path, written: str) -> None:
    frame = tabserve.train.features(folder / "schema.yaml", records())
    model = pipeline(frame)
    if written == "joblib":
        joblib.dump(model, folder / "model")
    elif written == "pickle":
        (folder / "model").write_bytes(pickle.dumps(model))
    else:
        skops.io.dump(model, folder / "model")
    done = save(folder, "model", "--version=7")
    assert done.exit_code == 0, done.output
    bundle = tabserve.bundle.load(folder / "b")
    assert done.output.startswith(f"{folder / 'b'}: m 7 (binary), predict, predict_proba")
    assert bundle.digest in done.output
    assert bundle.manifest.model.format == "skops"
    assert_serves(bundle, records().drop(columns="member"), {"predict_proba": model.predict_proba(frame)})


def test_numbers_for_categories_need_the_features_of_the_schema_or_integers_in_it(folder: Path) -> None:
    """What pandas reads of the file has whole numbers, which the schema calls a category."""
    own = pd.read_csv(folder / "records.csv").drop(columns=["member", "bad"])
    model = pipeline(own)
    joblib.dump(model, folder / "model")
    told = save(folder, "model")
    assert told.exit_code == 1
    assert "`floor` was int64 in training and would be object. Train it on tabserve.train.features(" in told.output
    (folder / "schema.yaml").write_text(SCHEMA.replace("category, values: [1, 2]", "integer, min: 1, max: 2"))
    done = save(folder, "model")
    assert done.exit_code == 0, done.output
    shown = records().drop(columns="member")
    assert_serves(tabserve.bundle.load(folder / "b"), shown, {"predict_proba": model.predict_proba(own)})


def test_an_xgboost_model_in_a_file_is_served_as_it_answers(folder: Path) -> None:
    """Paths of XGBoost's own files are left to `save`, whose tests are in test_train_files.py."""
    frame = tabserve.train.features(folder / "schema.yaml", records())
    model = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True).fit(frame, target())
    model.save_model(folder / "model.json")
    assert opened(folder / "model.json", ()) == str(folder / "model.json")
    joblib.dump(model, folder / "model")
    done = save(folder, "model")
    assert done.exit_code == 0, done.output
    bundle = tabserve.bundle.load(folder / "b")
    assert bundle.manifest.model.format == "ubj"
    assert_serves(bundle, records().drop(columns="member"), {"predict_proba": model.predict_proba(frame)})


def test_the_remedy_for_unknown_codes_is_an_option_that_works(folder: Path) -> None:
    frame = records().drop(columns=["member", "floor"]).assign(kind=records().kind.map({"z": 0, "x": 1, "y": 2}))
    (folder / "schema.yaml").write_text(SCHEMA.replace(", floor]", "]"))
    model = xgboost.XGBClassifier(n_estimators=5).fit(frame, target())
    joblib.dump(model, folder / "model")
    records(40).to_csv(folder / "records.csv", index=False)
    told = save(folder, "model")
    assert told.exit_code == 1
    assert "Give --codes 'kind=…,…', the categories in the order of their numbers from 0" in told.output
    done = save(folder, "model", "--codes", "kind=z,x,y")
    assert done.exit_code == 0, done.output
    shown = records().drop(columns="member")
    assert_serves(tabserve.bundle.load(folder / "b"), shown, {"predict_proba": model.predict_proba(frame)})


def test_the_remedy_for_an_unknown_marker_is_an_option_that_works(folder: Path) -> None:
    given, wanted = marked(-999.0)
    given.loc[:20, "b"] = np.nan
    booster = xgboost.train({**BINARY, "subsample": 0.5}, xgboost.DMatrix(given, wanted, missing=-999.0), 3)
    joblib.dump(booster, folder / "model")
    (folder / "schema.yaml").write_text(NUMBERS)
    given.to_csv(folder / "records.csv", index=False)
    told = save(folder, "model")
    assert told.exit_code == 1
    assert "Give --missing -999 if it was, as in DMatrix(..., missing=-999); otherwise --missing nan." in told.output
    done = save(folder, "model", "--missing", "-999", "--rounds=2")
    assert done.exit_code == 0, done.output
    assert "2 of 3 boosting rounds are served" in done.output


def test_the_remedies_about_pickles_are_options_that_work(folder: Path) -> None:
    joblib.dump(pipeline(tabserve.train.features(folder / "schema.yaml", records())), folder / "model")
    told = save(folder, "model", "--format=joblib")
    assert told.exit_code == 1
    assert "Save it as skops, or give --allow-joblib here and wherever it is loaded." in told.output
    assert save(folder, "model", "--format=joblib", "--allow-joblib").exit_code == 0
    assert tabserve.bundle.load(folder / "b", allow_joblib=True).manifest.model.format == "joblib"


OWN = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Halved(TransformerMixin, BaseEstimator):
    def fit(self, table, target=None):
        self.fitted_ = True
        return self

    def transform(self, table):
        return np.asarray(table) / 2
"""


def test_without_what_saving_needs_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump(pipeline(tabserve.train.features(folder / "schema.yaml", records())), folder / "model")
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    assert save(folder, "model").output == f"Error: model: skl2onnx is not installed. {extras.how('train')}\n"


def test_a_type_of_ones_own_is_trusted_by_name_if_it_has_a_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "schema.yaml").write_text(SCHEMA.replace("features: [amount, kind, floor]", "features: [amount]"))
    (folder / "halvings.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    model = make_pipeline(importlib.import_module("halvings").Halved(), LogisticRegression())
    content = pickle.dumps(model.fit(records()[["amount"]], target()))
    (folder / "model").write_bytes(content.replace(b"halvings", b"__main__"))  # as a script that defines it writes it
    assert save(folder, "model").output == (
        "Error: model: was written by a script that defines `Halved` itself. Put it into a module of its own, "
        "import it from there in the script, and write the file again (docs/your-model.md).\n"
    )
    (folder / "model").write_bytes(content)
    told = save(folder, "model").output
    assert told.endswith("If you know them, trust them by name: --trusted halvings.Halved.\n")
    assert save(folder, "model", "--trusted", "halvings.Halved").exit_code == 0


def test_a_model_that_another_scikit_learn_wrote_is_told(folder: Path) -> None:
    model = pipeline(tabserve.train.features(folder / "schema.yaml", records()))
    older = "0" + sklearn.__version__[1:]
    (folder / "model").write_bytes(pickle.dumps(model).replace(sklearn.__version__.encode(), older.encode()))
    done = save(folder, "model")
    assert done.exit_code == 0, done.output
    assert f"model was written by scikit-learn {older}, not by {sklearn.__version__}: compare" in done.stderr
    assert "compare the bundle's answers with those it gave there, or train it again" in done.stderr
    assert "- **scikit-learn before 1.8**" in (ROOT / "docs" / "install.md").read_text()


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (b"no model", (), "expected a model file, got unknown content"),
        (b"\x80\x04garbage", (), "not a model joblib can read"),
        (b"{}", ("--codes=kind",), "codes: expected NAME=VALUE,VALUE,…, got 'kind'. Give it as --codes kind=a,b,c."),
        (b"{}", ("--rounds=few",), "expected best or a number, got 'few'"),
        (b"{}", ("--name=a b",), "Give another name."),
    ],
)
def test_what_is_refused(folder: Path, content: bytes, options: tuple[str, ...], problem: str) -> None:
    (folder / "model").write_bytes(content)
    done = save(folder, "model", *options)
    assert done.exit_code in (1, 2)
    assert problem in done.output
    assert not (folder / "b").exists()


def test_all_that_is_wrong_with_the_sample_is_told(folder: Path) -> None:
    (folder / "model.json").write_text("{}")
    records().assign(kind="w", floor=3).to_csv(folder / "records.csv", index=False)
    lines = save(folder, "model.json").output.splitlines()
    assert [line.split("`")[1] for line in lines[1:]] == ["kind", "floor"]


def test_all_that_is_wrong_with_the_schema_is_told(folder: Path) -> None:
    (folder / "model.json").write_text("{}")
    (folder / "schema.yaml").write_text(SCHEMA.replace("amount, type", "amount, typ").replace("classes", "clases"))
    lines = save(folder, "model.json").output.splitlines()
    assert len([line for line in lines if "did you mean" in line]) == 2


def test_a_folder_of_mlflow_is_taken(folder: Path) -> None:
    flavour = {"pickled_model": "model.pkl"}
    model = pipeline(tabserve.train.features(folder / "schema.yaml", records()))
    (folder / "logged").mkdir()
    (folder / "logged" / "model.pkl").write_bytes(pickle.dumps(model))
    (folder / "logged" / "MLmodel").write_text(json.dumps({"flavors": {"sklearn": flavour}}))
    done = save(folder, "logged")
    assert done.exit_code == 0, done.output
    assert tabserve.bundle.load(folder / "b").manifest.model.format == "skops"


def test_arguments_in_remedies_become_options() -> None:
    assert in_options('Pass missing=-1 to save if it was; otherwise missing=float("nan").') == (
        "Give --missing -1 if it was; otherwise --missing nan."
    )


def test_the_help_says_that_a_pickle_is_a_program() -> None:
    told = " ".join(CliRunner().invoke(main, ["bundle", "save", "--help"]).output.split())
    assert "reading it runs whatever its author put into it. Give only files that you wrote" in told


def test_held_out_records_and_their_outcomes_come_from_a_file(folder: Path) -> None:
    joblib.dump(pipeline(tabserve.train.features(folder / "schema.yaml", records())), folder / "model.joblib")
    held_out = f"--held-out={folder / 'records.csv'}"

    done = save(folder, "model.joblib", held_out, "--label=bad")
    assert done.exit_code == 0, done.output
    found = tabserve.bundle.load(folder / "b").reference.evaluation
    assert found is not None
    assert found.outcomes is not None
    assert found.outcomes.confusion.sum(axis=0).tolist() == np.bincount(target()).tolist()
    assert found.held_out

    done = save(folder, "model.joblib", held_out, "--label=worse")
    assert "expected a column of the records, got 'worse'. Give one of these: member, amount, kind, floor, bad." in (
        done.output
    )
