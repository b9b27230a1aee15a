"""Which types in a skops file are trusted, and what is verified if their native code follows indices."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from click.testing import CliRunner
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances
from xgboost import XGBClassifier

import tabserve.bundle
import tabserve.train
from tabserve.bundle import BundleError, libraries
from tabserve.bundle.files import File
from tabserve.cli import main
from tabserve.engines.estimators import read
from tabserve.engines.trusted import LEFT, REVIEWED, TYPES
from tests.serving import ROOT
from tests.unit.bundles import saved, schema

X = np.abs(np.random.default_rng(0).normal(size=(40, 4)))
Y = (X[:, 0] > 0.7).astype(int)
OWN = "tests.unit.test_engines_trusted.Own"
# skops does not support these at all.
UNSUPPORTED = {"Birch"}


class Own(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A user's own estimator, which nobody but its user vouches for."""

    def fit(self, table: Any, target: Any) -> Own:
        self.model_ = LogisticRegression().fit(table, target)
        self.classes_, self.n_features_in_ = self.model_.classes_, self.model_.n_features_in_
        self.feature_names_in_ = self.model_.feature_names_in_
        return self

    def predict(self, table: Any) -> Any:
        return self.model_.predict(table)

    def predict_proba(self, table: Any) -> Any:
        return self.model_.predict_proba(table)


def estimators() -> Iterator[tuple[str, Any]]:
    """scikit-learn's own estimators, fitted if simple numbers are enough for that."""
    for name, kind in all_estimators():
        if name in UNSUPPORTED | {"FrozenEstimator"}:
            continue
        for estimator in _construct_instances(kind):
            # Some need texts, several targets or a square matrix; those are looked at unfitted.
            try:
                estimator.fit(X, Y)
            except (ValueError, TypeError, AttributeError, IndexError):
                estimator = kind.__call__(**estimator.get_params(deep=False))
            yield name, estimator


@pytest.fixture(autouse=True)
def own_types_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that load a bundle find this module; they import nothing from the current folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.filterwarnings("ignore")
def test_whatever_skops_does_not_trust_in_scikit_learns_estimators_is_reviewed() -> None:
    found: dict[str, set[str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator in estimators():
            for kind in skops.io.get_untrusted_types(data=skops.io.dumps(estimator)):
                found.setdefault(kind, set()).add(name)

    assert {kind: names for kind, names in found.items() if kind not in TYPES | LEFT.keys()} == {}
    assert {"sklearn.neighbors._kd_tree.KDTree", "sklearn.tree._tree.Tree", *LEFT} <= found.keys()
    assert not TYPES & LEFT.keys()


@pytest.mark.parametrize("library", REVIEWED)
def test_the_installed_library_is_one_the_table_was_reviewed_for(library: str) -> None:
    first, last = ([*map(int, version.split("."))] for version in REVIEWED[library])
    installed = [*map(int, str(libraries.installed(library)).split(".")[:2])]

    assert first <= installed <= last


@pytest.mark.parametrize(
    "model",
    [
        KNeighborsClassifier(algorithm="kd_tree"),
        pytest.param(KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"), marks=pytest.mark.long),
        pytest.param(
            KNeighborsClassifier(algorithm="ball_tree", metric="mahalanobis", metric_params={"VI": np.eye(2)}),
            marks=pytest.mark.long,
        ),
        make_pipeline(SplineTransformer(), LogisticRegression()),
        pytest.param(make_pipeline(SplineTransformer(), XGBClassifier(n_estimators=3)), marks=pytest.mark.long),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_of_trusted_types_are_saved_and_checked_without_a_word(model: Any, tmp_path: Path) -> None:
    bundle = saved(model, tmp_path)

    assert all(finding.ok for finding in tabserve.bundle.check(bundle.path))


def stored(model: Any, folder: Path) -> Path:
    path = folder / "model.skops"
    skops.io.dump(model, path)
    return path


@pytest.mark.parametrize(
    ("at", "damage", "problem"),
    [
        (1, lambda order: np.where(order == 7, 10_000_000, order), "rows point outside"),
        (2, lambda nodes: _with(nodes, "idx_end", 10_000_000), "nodes point outside"),
        (2, lambda nodes: _with(nodes, "idx_start", -5), "nodes point outside"),
        (2, lambda nodes: _with(nodes, "is_leaf", 0), "nodes point outside"),
        (2, lambda nodes: nodes[:1].copy(), "nodes do not match its bounds"),
        (3, lambda bounds: bounds[:, :, :1].copy(), "nodes do not match its bounds"),
        (3, lambda bounds: bounds[:-1].copy(), "nodes do not match its bounds"),
        (6, lambda count: count + 100, "nodes do not match its bounds"),
        (11, lambda metric: None, "no metric"),
    ],
)
@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree"])
def test_a_crafted_search_tree_is_refused(at: int, damage: Any, problem: str, algorithm: str, tmp_path: Path) -> None:
    model = KNeighborsClassifier(algorithm=algorithm, leaf_size=5).fit(X, Y)
    assert read(File.of(stored(model, tmp_path)), "skops").predict(X).tolist() == model.predict(X).tolist()

    state = list(model._tree.__getstate__())
    state[at] = damage(state[at])
    model._tree.__setstate__(tuple(state))

    with pytest.raises(BundleError, match=problem):
        read(File.of(stored(model, tmp_path)), "skops")


def _with(nodes: Any, field: str, value: int) -> Any:
    changed = nodes.copy()
    changed[field][-1] = value
    return changed


def test_a_metric_of_other_columns_is_refused(tmp_path: Path) -> None:
    options = {"metric": "seuclidean", "metric_params": {"V": np.ones(4)}}
    model = KNeighborsClassifier(algorithm="ball_tree", **options).fit(X, Y)
    state = list(model._tree.__getstate__())
    metric = state[11]
    metric.__setstate__((2.0, np.ones(1), np.zeros((1, 1))))
    with pytest.raises(BundleError, match="size"):
        read(File.of(stored(model, tmp_path)), "skops")


def test_a_crafted_sparse_matrix_is_refused(tmp_path: Path) -> None:
    model = Ridge().fit(X, Y)
    model.extra_ = sparse.csr_matrix(np.eye(4))
    assert read(File.of(stored(model, tmp_path)), "skops").extra_.nnz == 4
    model.extra_.indices[0] = 10_000_000

    with pytest.raises(BundleError, match="not a model skops can read"):
        read(File.of(stored(model, tmp_path)), "skops")


def test_a_crafted_spline_is_refused(tmp_path: Path) -> None:
    model = make_pipeline(SplineTransformer(), Ridge()).fit(X, Y)
    spline = model[0].bsplines_[0]
    spline.c = spline.c[:2]

    with pytest.raises(BundleError, match="Knots, coefficients and degree are inconsistent"):
        read(File.of(stored(model, tmp_path)), "skops")


def test_a_type_of_ones_own_is_trusted_by_name_all_the_way(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=rf"types that are not trusted: {OWN}\. .* trusted=\['{OWN}'\]"):
        saved(Own(), tmp_path)

    path = str(saved(Own(), tmp_path, trusted=[OWN]).path)
    refused = CliRunner().invoke(main, ["bundle", "check", path])
    taken = CliRunner().invoke(main, ["bundle", "check", path, "--trusted", "other.Kind", "--trusted", OWN])
    shown = CliRunner().invoke(main, ["bundle", "show", path])

    assert (refused.exit_code, taken.exit_code) == (1, 0)
    assert f"--trusted {OWN}" in refused.output
    assert f"trusted  {OWN}" in shown.output


def test_up_hands_the_names_to_both_services(tmp_path: Path) -> None:
    path = str(saved(Own(), tmp_path, trusted=[OWN]).path)
    command = [sys.executable, "-m", "tabserve.cli", "up", path, "--check"]

    refused = _run(command)
    taken = _run([*command, "--trusted", "other.Kind", "--trusted", OWN])

    assert refused[0] == 1
    assert f"TABSERVE_TRUSTED={OWN}, or `trusted: [{OWN}]` in the chart" in refused[1]
    assert taken[0] == 0, taken[1]
    assert "The decision is the expected one." in taken[1]


def _run(command: list[str]) -> tuple[int, str]:
    import subprocess

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_module_that_is_not_installed_is_named_with_where_to_put_it(tmp_path: Path) -> None:
    model = Own().fit(*_table(tmp_path))
    path = stored(model, tmp_path)
    path.write_bytes(path.read_bytes())
    with pytest.raises(BundleError, match=r"needs the module `nowhere`.*the images of both services"):
        read(File.of(_renamed(path, "tests.unit.test_engines_trusted", "nowhere")), "skops", ["nowhere.Own"])


def _table(folder: Path) -> tuple[Any, Any]:
    from tests.unit.bundles import records, target

    return tabserve.train.features(schema(folder), records()), target("binary")


def _renamed(path: Path, old: str, new: str) -> Path:
    """The file with a module's name replaced in its schema."""
    import zipfile

    renamed = path.with_name("renamed.skops")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(renamed, "w") as made:
        for name in source.namelist():
            made.writestr(name, source.read(name).replace(old.encode(), new.encode()))
    return renamed


def test_a_type_of_the_script_itself_is_refused_when_saving(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"`__main__\.Own` is defined in the running script"):
        saved(LogisticRegression(), tmp_path, trusted=["__main__.Own"])


def _as_called(path: Path, name: str, loader: str) -> Path:
    """The file with an additional part, which skops would make by calling the name with the number 1."""
    import json
    import zipfile

    module, _, kind = name.rpartition(".")
    one = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "1", "__id__": 1}
    many = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": [one], "__id__": 2}
    part = {
        "__class__": kind, "__module__": module, "__loader__": loader, "__id__": 3, "content": many,
        "__reduce__": {"args": many}, "key_types": many,
    }  # fmt: skip
    changed = path.with_name("changed.skops")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as made:
        tree = json.loads(source.read("schema.json"))
        tree["content"]["content"]["extra_"] = part
        made.writestr("schema.json", json.dumps(tree))
        for other in set(source.namelist()) - {"schema.json"}:
            made.writestr(other, source.read(other))
    return changed


@pytest.mark.parametrize("loader", ["ConstructorFromReduceNode", "LossNode", "ListNode", "SetNode", "DictNode"])
@pytest.mark.parametrize(
    "name",
    [
        "functools.partial",
        "numpy.mean",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.utils.validation.check_array",
        "xgboost.core.Booster",
    ],
)
def test_what_we_trust_is_never_called_as_a_file_is_loaded(name: str, loader: str, tmp_path: Path) -> None:
    path = stored(LogisticRegression().fit(X, Y), tmp_path)

    with pytest.raises(BundleError, match=rf"{name} would be called by loading the file \({loader}\)"):
        read(File.of(_as_called(path, name, loader)), "skops")


def test_a_module_that_a_joblib_file_needs_is_named_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    import joblib

    module = types.ModuleType("gone")
    exec("class Step: pass", vars(module))  # noqa: S102  # a module that is there only while the file is written
    monkeypatch.setitem(sys.modules, "gone", module)
    joblib.dump(module.Step(), tmp_path / "model.joblib")
    monkeypatch.delitem(sys.modules, "gone")

    with pytest.raises(BundleError, match=r"needs the module `gone`, .*the images of both services"):
        read(File.of(tmp_path / "model.joblib"), "joblib")
