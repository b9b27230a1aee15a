"""MLflow's folders, made here in its documented form."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
import yaml
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tabserve.train
from tabserve.bundle import Bundle, BundleError, UntrustedError
from tabserve.cli import main
from tabserve.schema.reading import parse
from tabserve.train import mlflow
from tests.unit.served import assert_serves

SCHEMA = """\
task: binary
record: [{name: amount, type: number}, {name: age, type: integer}]
features: [amount, age]
"""
COLUMNS = [
    {"type": "double", "name": "amount", "required": True},
    {"type": "long", "name": "age", "required": True},
]
PICKLED = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "sklearn_version": "1.8.0"}


def records() -> pd.DataFrame:
    random = np.random.default_rng(2)
    return pd.DataFrame({"amount": random.normal(50, 20, 150).round(2), "age": random.integers(18, 90, 150)})


def target() -> Any:
    return (records().amount + records().age > 100).astype(int)


def folder_of(
    folder: Path, flavours: dict[str, Any], columns: Any = COLUMNS, answers: str = '[{"type": "long"}]'
) -> Path:
    """An MLflow model without its file."""
    folder.mkdir(exist_ok=True)
    signature = {"inputs": json.dumps(columns), "outputs": answers, "params": None}
    python = {"env": {"conda": "conda.yaml"}, "loader_module": "mlflow.any", "python_version": "3.13.0"}
    contents = {"flavors": {"python_function": python, **flavours}, "mlflow_version": "3.17.2", "signature": signature}
    (folder / "MLmodel").write_text(yaml.safe_dump(contents))
    return folder


def pickled(folder: Path) -> tuple[Path, Any]:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(records(), target())
    folder = folder_of(folder, {"sklearn": PICKLED})
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return folder, model


def in_skops(folder: Path) -> tuple[Path, Any]:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(records(), target())
    flavour = {"pickled_model": "model.skops", "serialization_format": "skops"}
    folder = folder_of(folder, {"sklearn": flavour})
    skops.io.dump(model, folder / "model.skops")
    return folder, model


def of_xgboost(folder: Path, file: str = "model.ubj") -> tuple[Path, Any]:
    model = xgboost.XGBClassifier(n_estimators=5).fit(records(), target())
    flavour = {"data": file, "model_class": "xgboost.sklearn.XGBClassifier", "model_format": file.rpartition(".")[2]}
    folder = folder_of(folder, {"xgboost": flavour})
    model.save_model(folder / file)
    return folder, model


def of_xgboost_json(folder: Path) -> tuple[Path, Any]:
    return of_xgboost(folder, "model.json")


def of_a_booster(folder: Path) -> tuple[Path, Any]:
    model = xgboost.XGBClassifier(n_estimators=5).fit(records(), target())
    folder = folder_of(folder, {"xgboost": {"data": "model.ubj", "model_class": "xgboost.core.Booster"}})
    model.get_booster().save_model(folder / "model.ubj")
    return folder, model


def of_lightgbm(folder: Path) -> tuple[Path, Any]:
    model = lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1).fit(records(), target())
    folder = folder_of(folder, {"lightgbm": {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}})
    model.booster_.save_model(folder / "model.lgb")
    return folder, model


def saved(model: Path, tmp_path: Path, **options: Any) -> Bundle:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    options = {"name": "m", "version": "1", "schema": tmp_path / "schema.yaml", "sample": records(), **options}
    return tabserve.train.save(model, tmp_path / "bundle", **options)


@pytest.mark.parametrize("make", [pickled, in_skops, of_xgboost, of_xgboost_json, of_a_booster, of_lightgbm])
def test_a_folders_model_is_served_as_it_answers(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = make(tmp_path / "model")
    bundle = saved(
        folder, tmp_path, allow_joblib=make is pickled, **({"missing": np.nan} if make is of_a_booster else {})
    )
    assert bundle.manifest.model.format != "joblib"
    assert_serves(bundle, records(), {"predict_proba": model.predict_proba(records())})


def test_a_pickle_is_read_where_that_is_allowed_alone(tmp_path: Path) -> None:
    folder, _ = pickled(tmp_path / "model")
    with pytest.raises(BundleError, match=r"model\.pkl: is a pickle, .* Pass allow_joblib=True"):
        saved(folder, tmp_path)


def test_types_of_a_skops_file_are_trusted_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", {"sklearn": {"pickled_model": "model.skops"}})
    skops.io.dump(make_pipeline(pickle.Pickler), folder / "model.skops")
    with pytest.raises(UntrustedError, match="trusted="):
        saved(folder, tmp_path)


@pytest.mark.parametrize(
    ("flavours", "content", "problem"),
    [
        ({"pytorch": {}}, b"", "expected a flavour of xgboost, lightgbm, sklearn, got pytorch"),
        ({}, b"", "got python_function alone"),
        ({"xgboost": {"data": "other.ubj"}}, b"", "its file 'other.ubj' is not in the folder"),
        ({"xgboost": {"data": "../secret"}}, b"", "is not in the folder"),
        ({"lightgbm": {"data": "model"}}, b"tree\nversion=v4\n", "not a model LightGBM can read.* Log the model again"),
        (
            {"sklearn": {"pickled_model": "model"}},
            b"\x80\x04garbage",
            "not a model joblib can read.* Log the model again",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, flavours: dict[str, Any], content: bytes, problem: str) -> None:
    folder = folder_of(tmp_path / "model", flavours)
    (folder / "model").write_bytes(content)
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(BundleError, match=problem):
        saved(folder, tmp_path, allow_joblib=True)


@pytest.mark.parametrize("text", ["flavors: [", "7", ""])
def test_a_malformed_mlmodel_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(BundleError, match=r"MLmodel: .* Log the model again"):
        mlflow.model_of(tmp_path, allow_joblib=False)


ALL = [
    {"type": "double", "name": "monthly amount", "required": False},
    {"type": "long", "name": "age"},
    {"type": "boolean", "name": "member"},
    {"type": "string", "name": "country"},
    {"type": "string", "name": "remark"},
    {"type": "datetime", "name": "opened"},
]


def drafted(folder: Path, *options: str) -> str:
    done = CliRunner().invoke(main, ["schema", "draft", str(folder), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_schema_is_drafted_of_the_signature_and_a_sample(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", {}, ALL)
    lines = [f"{country},{'x' * at}" for at, country in enumerate(300 * ["DE", "FR"])]
    (tmp_path / "records.csv").write_text("\n".join(["country,remark", *lines]))
    text = drafted(folder, f"--sample={tmp_path / 'records.csv'}")
    schema = parse(text, "schema.yaml")
    assert schema.task == "binary"
    assert [(field.name, field.type, field.required, field.values) for field in schema.record] == [
        ("monthly amount", "number", False, ()),
        ("age", "integer", True, ()),
        ("member", "boolean", True, ()),
        ("country", "category", True, ("DE", "FR")),
        ("remark", "text", True, ()),
        ("opened", "timestamp", True, ()),
    ]
    assert schema.feature_names == ("monthly amount", "age", "member", "country", "remark")
    assert "# `opened` is not a feature by itself" in text


@pytest.mark.parametrize(
    ("answers", "options", "task"),
    [
        ('[{"type": "double"}]', [], "regression"),
        ('[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]', [], "binary"),
        ('[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}]', [], "regression"),
        ('[{"type": "long"}]', ["--task=multiclass"], "multiclass"),
    ],
)
def test_the_task_is_guessed_or_told(tmp_path: Path, answers: str, options: list[str], task: str) -> None:
    assert parse(drafted(folder_of(tmp_path / "model", {}, COLUMNS, answers), *options), "schema.yaml").task == task


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}], "its signature names no columns"),
        ([{"type": "binary", "name": "picture"}], "`picture`: expected one of the types double, .* got binary"),
    ],
)
def test_a_signature_that_no_schema_is_for_is_refused(tmp_path: Path, columns: Any, problem: str) -> None:
    folder = folder_of(tmp_path / "model", {}, columns)
    done = CliRunner().invoke(main, ["schema", "draft", str(folder)])
    assert done.exit_code == 1
    assert pytest.RaisesExc(Exception, match=problem).matches(Exception(done.output))
