from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

import tabserve.bundle
from tabserve import engines
from tabserve.bundle import BundleError
from tests.selection import often
from tests.unit.bundles import resealed, saved


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    return saved(XGBClassifier(n_estimators=10), folder, format="json", engine="xgboost").path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def failed(folder: Path, **options: Any) -> str:
    """The last finding, which is the failed one."""
    *passed, last = tabserve.bundle.check(folder, **options)
    assert all(finding.ok for finding in passed)
    assert not last.ok
    return f"{last.check}: {last.detail}"


def test_a_good_bundle_passes_every_check(folder: Path) -> None:
    findings = tabserve.bundle.check(folder)
    assert all(finding.ok for finding in findings)
    names = [finding.check for finding in findings]
    assert names == ["manifest", "files", "formats", "schema", "reference", "libraries", "model"]


def test_what_cannot_be_replayed_is_told(folder: Path) -> None:
    schema = folder / "schema.yaml"
    text = schema.read_text()
    schema.write_text(text.replace("name: age,", "name: age, logged: drop,").replace("min: 0", "min: 0, logged: hash"))
    resealed(folder)
    findings = tabserve.bundle.check(folder)
    assert [(one.ok, one.detail) for one in findings if one.check == "replay"] == [
        (True, "logged decisions cannot be replayed: `amount` is hashed, `age` is dropped")
    ]


def test_the_name_is_checked(folder: Path) -> None:
    resealed(folder, lambda contents: contents.update(name="my model"))
    assert failed(folder).startswith("manifest: bundle.json: name: expected 1 to 60 characters")


def test_the_first_failure_is_named_with_the_remedy(folder: Path) -> None:
    assert failed(folder, digest="sha256:0").startswith("manifest: bundle.json: expected digest sha256:0")
    os.truncate(folder / "model.json", 5)
    assert failed(folder).startswith("files: model.json: expected")
    resealed(folder)
    assert failed(folder).startswith("model: model.json: not a model XGBoost can read")
    (folder / "model.json").unlink()
    assert failed(folder).startswith("files: model.json: missing")
    shutil.rmtree(folder)
    assert "missing, so this is not a bundle" in failed(folder)


@pytest.mark.parametrize("index", often([2**20, 2**30, -(2**30)], [2**30]))
def test_child_indices_beyond_the_tree_fail_the_check_and_not_the_checker(folder: Path, index: int) -> None:
    """dmlc/xgboost#7903: XGBoost may crash, or refuse the file, or answer from memory that is not the model's."""
    path = folder / "model.json"
    model = json.loads(path.read_text())
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["left_children"][0] = tree["right_children"][0] = index
    path.write_text(json.dumps(model))
    resealed(folder)
    assert failed(folder).startswith("model: model.json: ")


def test_a_crash_is_reported_with_its_signal(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "crashing"
    crashing.mkdir()
    (crashing / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'tabserve.engines.isolated' in sys.orig_argv: os.kill(os.getpid(), signal.SIGSEGV)"
    )
    monkeypatch.setenv("PYTHONPATH", str(crashing))
    assert failed(folder) == "model: model.json: loading it crashed the process (SIGSEGV). Save the bundle again."


def test_a_model_that_answers_otherwise_fails(folder: Path) -> None:
    path = folder / "model.json"
    model = json.loads(path.read_text())
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["split_conditions"] = [value * 1.5 for value in tree["split_conditions"]]
    path.write_text(json.dumps(model))
    resealed(folder)
    assert "does not repeat the reference answers" in failed(folder)


@pytest.mark.parametrize("field", often(["left_child", "feature"], ["left_child"]))
def test_a_crafted_scikit_learn_tree_is_refused_before_it_predicts(tmp_path: Path, field: str) -> None:
    """skops loads such a tree, and scikit-learn would follow its indices unchecked (scikit-learn #34558)."""
    import skops.io

    bundle = saved(DecisionTreeClassifier(max_depth=3), tmp_path, engine="sklearn")
    model = skops.io.load(bundle.file("model.skops"), trusted=["sklearn.tree._tree.Tree"])
    state = model.tree_.__getstate__()
    state["nodes"][field][0] = 10_000_000
    model.tree_.__setstate__(state)
    skops.io.dump(model, bundle.file("model.skops"))
    resealed(bundle.path)
    assert "not a model skops can read: a tree" in failed(bundle.path)


def test_a_converted_form_that_disagrees_is_dropped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    bundle = saved(LogisticRegression(), tmp_path, engine="onnxruntime")
    other = saved(LogisticRegression(C=0.001), tmp_path / "other", engine="onnxruntime")
    shutil.copy(other.file("model.onnx"), bundle.file("model.onnx"))
    resealed(bundle.path)
    engine_set = engines.load(tabserve.bundle.load(bundle.path))
    assert engine_set.names == ("sklearn",)
    assert "onnxruntime: not used: `predict" in engine_set.dropped[0]
    assert engine_set.select(1, ["predict_proba"]).name == "sklearn"
    assert failed(bundle.path).startswith("engine: onnxruntime: not used")


def test_a_converted_form_that_is_damaged_is_dropped(tmp_path: Path) -> None:
    bundle = saved(LogisticRegression(), tmp_path, engine="onnxruntime")
    bundle.file("model.onnx").write_bytes(b"\x08" + b"\xff" * 100)
    resealed(bundle.path)
    engine_set = engines.load(tabserve.bundle.load(bundle.path))
    assert engine_set.names == ("sklearn",)
    assert "model.onnx: not a graph ONNX Runtime can read" in engine_set.dropped[0]


def test_a_native_model_that_disagrees_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    bundle = saved(LogisticRegression(), tmp_path, engine="sklearn")
    other = saved(LogisticRegression(C=0.001), tmp_path / "other", engine="sklearn")
    shutil.copy(other.file("model.skops"), bundle.file("model.skops"))
    resealed(bundle.path)
    with pytest.raises(BundleError, match="sklearn does not repeat the reference answers"):
        engines.load(tabserve.bundle.load(bundle.path))


def test_a_preprocessor_is_checked_too(tmp_path: Path) -> None:
    from tests.unit.test_bundle_preprocessor import preprocessed

    (tmp_path / "other").mkdir()
    bundle = preprocessed(tmp_path, StandardScaler())
    assert tabserve.bundle.check(bundle.path)[-1].check == "preprocessor"
    other = preprocessed(tmp_path / "other", StandardScaler(with_mean=False))
    shutil.copy(other.file("preprocessor.onnx"), bundle.file("preprocessor.onnx"))
    resealed(bundle.path)
    assert failed(bundle.path).startswith("preprocessor: preprocessor.onnx: differs from the reference rows")


def test_trusted_types_and_joblib_reach_the_process_that_loads(tmp_path: Path) -> None:
    bundle = saved(LogisticRegression(), tmp_path, format="joblib", allow_joblib=True)
    assert failed(bundle.path).startswith("formats: model.joblib: loading a joblib file runs its author's code")
    assert all(finding.ok for finding in tabserve.bundle.check(bundle.path, allow_joblib=True))


def test_the_process_that_loads_prints_findings_alone(folder: Path) -> None:
    digest = tabserve.bundle.load(folder).digest
    command = [sys.executable, "-m", "tabserve.engines.isolated", str(folder), digest]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [finding["check"] for finding in json.loads(done.stdout)] == ["model"]


@pytest.mark.parametrize("engine", ["sklearn", "onnxruntime"])
def test_a_model_that_is_replaced_after_it_was_verified_is_not_used(tmp_path: Path, engine: str) -> None:
    (tmp_path / "other").mkdir()
    bundle = saved(LogisticRegression(), tmp_path, engine=engine)
    other = saved(LogisticRegression(), tmp_path / "other", engine=engine, version="9")
    verified = tabserve.bundle.load(bundle.path)
    for name in ("model.skops", "model.onnx"):
        if engine == "onnxruntime" or name == "model.skops":
            os.replace(other.file(name), bundle.file(name))
            bundle.file(name).write_bytes(bundle.file(name).read_bytes() + b"\0")

    with pytest.raises(BundleError, match="changed while it was loaded"):
        engines.load(verified)


def test_a_file_that_is_written_again_with_the_same_content_is_the_same(tmp_path: Path) -> None:
    bundle = saved(LogisticRegression(), tmp_path, engine="sklearn")
    verified = tabserve.bundle.load(bundle.path)
    content = bundle.file("model.skops").read_bytes()
    bundle.file("model.skops").unlink()
    bundle.file("model.skops").write_bytes(content)

    assert engines.load(verified).names == ("sklearn",)
