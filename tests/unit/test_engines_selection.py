from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

from tabserve import engines
from tabserve.arrays import Array, Features, concatenate, rows, take
from tabserve.bundle import Bundle
from tabserve.bundle.manifest import EngineName, EngineRange, Timing
from tabserve.engines import EngineSet
from tabserve.train.planning import measure, plan
from tests.unit.bundles import saved


class Named:
    """An engine that answers with its name."""

    row_independent = True

    def __init__(self, name: str, *outputs: str) -> None:
        self.name = name
        self.outputs = frozenset(outputs)

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        return {name: np.array([self.name]) for name in outputs}


NATIVE = Named("xgboost", "predict_proba", "margin", "contributions")
CONVERTED = Named("onnxruntime", "predict_proba")
PLAN = (EngineRange(0, "onnxruntime"), EngineRange(32, "xgboost"))


@pytest.mark.parametrize(
    ("rows", "outputs", "expected"),
    [
        (0, ["predict_proba"], "onnxruntime"),
        (1, ["predict_proba"], "onnxruntime"),
        (31, ["predict_proba"], "onnxruntime"),
        (32, ["predict_proba"], "xgboost"),
        (10_000, ["predict_proba"], "xgboost"),
        (1, ["margin"], "xgboost"),
        (1, ["predict_proba", "margin"], "xgboost"),
        (1, ["contributions"], "xgboost"),
        (1, ["predict_proba", "margin", "contributions"], "xgboost"),
        (1, ["predict_proba", "contributions"], "onnxruntime"),
        (32, ["predict_proba", "contributions"], "xgboost"),
    ],
)
def test_the_rows_and_outputs_of_a_request_choose_its_engine(rows: int, outputs: list[str], expected: str) -> None:
    assert EngineSet([NATIVE, CONVERTED], PLAN).select(rows, outputs).name == expected


def test_the_native_engine_adds_contributions_to_what_another_answers() -> None:
    engine = EngineSet([NATIVE, CONVERTED], PLAN).select(1, ["predict_proba", "contributions"])
    answers = engine.run(np.zeros((1, 1)), ["predict_proba", "contributions"])
    assert {name: array.tolist() for name, array in answers.items()} == {
        "predict_proba": ["onnxruntime"],
        "contributions": ["xgboost"],
    }


def test_the_native_engine_stands_in_for_a_dropped_one() -> None:
    engine_set = EngineSet([NATIVE], PLAN, ["onnxruntime: not used: it disagrees"])
    assert engine_set.select(1, ["predict_proba"]) is NATIVE
    assert engine_set.names == ("xgboost",)


def test_an_output_nobody_computes_is_an_error() -> None:
    with pytest.raises(KeyError, match="anomaly_score"):
        EngineSet([NATIVE, CONVERTED], PLAN).select(1, ["anomaly_score"])


def timings(engine: EngineName, *microseconds: float) -> list[Timing]:
    return [Timing(engine, rows, value) for rows, value in zip((1, 4, 16, 64, 256), microseconds, strict=True)]


@pytest.mark.parametrize(
    ("native", "converted", "expected"),
    [
        ((120, 137, 155, 209, 486), (10, 28, 89, 327, 1256), [(0, "onnxruntime"), (32, "xgboost")]),
        ((120, 137, 155, 209, 486), (10, 28, 89, 200, 1256), [(0, "onnxruntime"), (32, "xgboost")]),
        ((100, 100, 100, 100, 100), (99, 99, 99, 99, 99), [(0, "xgboost")]),
        ((100, 100, 100, 100, 100), (9, 9, 9, 9, 9), [(0, "onnxruntime")]),
        ((402, 514, 575, 792, 1652), (26, 63, 186, 649, 1955), [(0, "onnxruntime"), (32, "xgboost")]),
        ((211, 249, 275, 384, 898), (19, 49, 152, 513, 1942), [(0, "onnxruntime"), (32, "xgboost")]),
    ],
)
def test_the_plan_changes_where_the_faster_engine_does(
    native: tuple[float, ...], converted: tuple[float, ...], expected: list[tuple[int, str]]
) -> None:
    ranges = plan(timings("xgboost", *native), timings("onnxruntime", *converted))
    assert [(part.from_rows, part.engine) for part in ranges] == expected


def test_engines_are_timed_in_turns_on_the_same_rows() -> None:
    calls: list[tuple[str, bytes]] = []

    class Recorded(Named):
        def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
            calls.append((self.name, np.asarray(features).tobytes()))
            return super().run(features, outputs)

    features = np.arange(1000, dtype=np.float32).reshape(500, 2)
    own, other = measure([Recorded("xgboost"), Recorded("onnxruntime")], features, ["predict_proba"])
    assert [one.engine for one in own] == ["xgboost"] * 5
    assert [one.engine for one in other] == ["onnxruntime"] * 5
    first, second = calls[::2], calls[1::2]
    assert {name for name, _ in first} == {"xgboost"}
    assert {name for name, _ in second} == {"onnxruntime"}
    assert [rows for _, rows in first] == [rows for _, rows in second]
    assert len({rows for _, rows in first}) > 5


def test_a_plan_is_saved_with_its_timings_and_agreement(tmp_path: Path) -> None:
    info = saved(XGBClassifier(n_estimators=20), tmp_path).manifest.model
    assert info.engines[0].from_rows == 0
    assert [(one.engine, one.rows) for one in info.timings] == [
        (engine, rows) for engine in ("xgboost", "onnxruntime") for rows in (1, 4, 16, 64, 256)
    ]
    assert [(one.engine, one.rows) for one in info.agreement] == [("onnxruntime", 4956)]
    assert info.agreement[0].max_difference <= info.tolerance


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return saved(LogisticRegression(), tmp_path_factory.mktemp("linear"), engine="onnxruntime")


def test_no_native_library_is_loaded_before_it_is_asked_for(linear: Bundle) -> None:
    code = (
        "import sys, tabserve.bundle; from tabserve import engines\n"
        "bundle = tabserve.bundle.load(sys.argv[1]); engine_set = engines.load(bundle)\n"
        "rows = bundle.reference.features[:3]\n"
        "print(engine_set.select(3, ['predict_proba']).run(rows, ['predict_proba'])['predict_proba'].shape)\n"
        "print(sorted({'sklearn', 'xgboost', 'pandas', 'scipy', 'skops'} & set(sys.modules)))\n"
        "print(engine_set.select(3, ['contributions']).run(rows, ['contributions'])['contributions'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(linear.path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(3, 2)", "[]", "(3, 3)"]


def test_reasons_load_the_native_engine_at_start(tmp_path: Path) -> None:
    extra = "  decision: {score: fraud}\n  reasons: {top: 1}\n"
    bundle = saved(LogisticRegression(), tmp_path, engine="onnxruntime", extra=extra)
    assert type(engines.load(bundle).select(1, ["contributions"])).__name__ == "SklearnEngine"


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """More trees than ONNX Runtime has one thread add up, if it has several."""
    fields = ("amount", "income", "age")
    return saved(XGBClassifier(n_estimators=120, max_depth=3), tmp_path_factory.mktemp("trees"), fields=fields)


@pytest.mark.parametrize("name", ["xgboost", "onnxruntime"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_neither_other_rows_nor_threads_change_a_bit(trees: Bundle, name: EngineName, threads: int) -> None:
    features = trees.reference.features
    alone, engine = (engines.open_engine(trees, name, count) for count in (1, threads))
    assert engine.row_independent
    for output in engine.outputs:
        whole = alone.run(features, [output])[output]
        for start, size in ((0, 1), (3, 1), (1, 2), (7, 31), (50, 333), (0, rows(features))):
            part = engine.run(take(features, slice(start, start + size)), [output])[output]
            assert part.tobytes() == whole[start : start + size].tobytes()


def test_matrix_products_are_never_called_independent(linear: Bundle) -> None:
    assert not engines.open_engine(linear, "sklearn", 1).row_independent
    assert not engines.open_engine(linear, "onnxruntime", 1).row_independent


def test_joined_features_are_the_rows_of_all() -> None:
    matrix = np.arange(6.0).reshape(3, 2)
    columns = {"a": np.arange(3.0), "b": np.array(["x", "y", "z"], object)}
    for features in (matrix, columns):
        parts = [take(features, slice(0, 1)), take(features, slice(1, 3))]
        joined = concatenate(parts)
        assert rows(joined) == 3
        np.testing.assert_equal(joined, features)
