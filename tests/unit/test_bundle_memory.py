from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.tree import ExtraTreeRegressor

import tabserve.bundle
import tabserve.train
from tests.unit.bundles import records, schema

PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
OURS = (
    "import sys, tabserve.bundle; from tabserve import engines; bundle = tabserve.bundle.load(sys.argv[1]);"
    "engine = engines.load(bundle).select(1, ['predict']);"
    "engine.run(bundle.reference.features[:1], ['predict']);"
)
LIBRARY = {
    "skops": (
        "import sys, numpy, pandas, tabserve.bundle, skops.io, sklearn.tree;"
        "model = skops.io.load(sys.argv[1] + '/model.skops', trusted=['sklearn.tree._tree.Tree']);"
        "model.predict(pandas.DataFrame({'amount': numpy.zeros(700), 'age': numpy.zeros(700)}));"
    ),
    "ubj": (
        "import sys, numpy, tabserve.bundle, xgboost; model = xgboost.Booster();"
        "model.load_model(sys.argv[1] + '/model.ubj');"
        "model.inplace_predict(numpy.zeros((700, 2)));"
    ),
}


def large_tree() -> Any:
    """A tree with as many leaves as rows: about 200 MB."""
    random = np.random.default_rng(0)
    rows = random.random((1_400_000, 2))
    tree = ExtraTreeRegressor(random_state=0).fit(rows, random.random(len(rows)))
    tree.feature_names_in_ = np.array(["amount", "age"], object)
    return tree


def large_booster() -> Any:
    """A small booster with 100 MB of text in addition to its trees."""
    data = xgboost.DMatrix(np.random.default_rng(0).random((100, 2)), np.arange(100) / 100)
    booster = xgboost.train({"max_depth": 2}, data, 3)
    booster.set_attr(note="x" * 100_000_000)
    return booster


@pytest.mark.parametrize(
    ("make", "form"), [pytest.param(large_tree, "skops", marks=pytest.mark.long), (large_booster, "ubj")]
)
def test_a_large_model_is_held_no_more_often_than_its_library_holds_it(make: Any, form: str, tmp_path: Path) -> None:
    path = schema(tmp_path, "regression")
    model = make()
    bundle = tabserve.train.save(
        model,
        tmp_path / "b",
        name="m",
        version="1",
        schema=path,
        sample=records(),
        engine="sklearn" if form == "skops" else "xgboost",
    )
    size = bundle.manifest.files[bundle.manifest.model.file].size
    assert size > (190e6 if form == "skops" else 99e6)
    ours, library = peak(OURS, bundle.path), peak(LIBRARY[form], bundle.path)
    assert ours - library < 0.3 * size, f"{ours / 1e6:.0f} MB, the library alone {library / 1e6:.0f} MB"


def peak(code: str, folder: Path) -> int:
    command = [sys.executable, "-c", code + PEAK, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)
