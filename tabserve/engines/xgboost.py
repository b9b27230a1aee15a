"""Evaluate XGBoost's models through the Booster."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features, blanked
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import ModelInfo
from tabserve.engines import parity
from tabserve.engines.contributions import boosters

_NO_LENGTH = b"\xff" * 16
# For these, `predict` returns class numbers, or margins, in place of probabilities.
_ANSWERS_CLASSES = "multi:softmax"
_ANSWERS_PROBABILITIES = "multi:softprob"
# Tables for contributions are tried for smaller files: a larger one takes seconds to be taken apart.
_LARGE = 4 << 20


class XGBoostEngine:
    """A Booster on an FP32 matrix; categories are codes, missing values NaN.

    Trees up to the best iteration of early stopping are used, as in XGBoost's estimators.
    """

    name = "xgboost"

    def __init__(self, file: File, info: ModelInfo, *, threads: int, reference: Features | None = None) -> None:
        """reference: rows to prove independence with. Raises BundleError."""
        self._booster = read(file, threads)
        self._classes = np.array(info.classes) if info.classes else None
        self._threads = threads
        self._missing = info.missing
        self._linear = kind(self._booster) == "gblinear"
        self._trees = iterations(self._booster)
        self.outputs = frozenset(info.outputs)
        if self._booster.num_features() != len(info.features):
            got, expected = self._booster.num_features(), len(info.features)
            raise BundleError(file.name, f"expected {expected} features, got {got}", "Save the bundle again.")
        self._shallow = (
            boosters.contributor(self._booster, self._trees, blanked(np.asarray(reference), self._missing))
            if reference is not None and len(file.content) <= _LARGE
            else None
        )
        self.row_independent = (
            reference is not None and self.name in info.row_independent and parity.rows_are_independent(self, reference)
        )

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises xgboost.core.XGBoostError."""
        features = blanked(np.asarray(features), self._missing)
        # Contributions and values share one matrix; values by themselves are cheaper without.
        needed = self._linear or ("contributions" in outputs and self._shallow is None)
        matrix = self._matrix(features) if needed else None
        values: Array | None = None
        answers: dict[str, Array] = {}
        for name in outputs:
            if name == "contributions":
                answers[name] = _squeezed(self._contributions(features, matrix))
            elif name == "margin":
                answers[name] = _squeezed(self._predict(features, matrix, "margin"))
            else:
                values = self._predict(features, matrix, "value") if values is None else values
                answers[name] = self._probabilities(values) if name == "predict_proba" else self._answer(values)
        return answers

    def _predict(self, features: Features, matrix: Any, kind: str) -> Array:
        """A prediction [rows, groups], with the same bits with and without a matrix."""
        if matrix is not None:
            return self._of_matrix(matrix, output_margin=kind == "margin")
        answer = self._booster.inplace_predict(
            features, iteration_range=self._trees, predict_type=kind, validate_features=False, strict_shape=True
        )
        return np.asarray(answer)

    def _contributions(self, features: Array, matrix: Any) -> Array:
        """[rows, groups, features + 1]."""
        return self._of_matrix(matrix, pred_contribs=True) if self._shallow is None else self._shallow(features)

    def _of_matrix(self, matrix: Any, **options: Any) -> Array:
        """Values [rows, groups], or SHAP values [rows, groups, features + 1]."""
        if not self._linear:
            options |= {"iteration_range": self._trees}
        return np.asarray(self._booster.predict(matrix, strict_shape=True, validate_features=False, **options))

    def _matrix(self, features: Features) -> Any:
        """The DMatrix without names and types: trees don't read them, and they cost as much as the matrix itself."""
        import xgboost

        return xgboost.DMatrix(features, nthread=self._threads)

    def _probabilities(self, values: Array) -> Array:
        return values if values.shape[1] > 1 else np.hstack([1 - values, values])

    def _answer(self, values: Array) -> Array:
        if self._classes is None:
            return _squeezed(values)
        best = values.argmax(axis=1) if values.shape[1] > 1 else (values[:, 0] > 0.5).astype(np.intp)
        return np.asarray(self._classes[best])


def read(file: File, threads: int = 1) -> Any:
    """The Booster in a `.ubj` or `.json` file, read by XGBoost itself. Raises BundleError.

    A malformed file can crash the process (dmlc/xgboost#7903), so verify its digest first.
    """
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(_padded(file.content))  # recognised by its content, not by its name
        booster.set_param({"nthread": threads, "device": "cpu"})
        if objective(booster) == _ANSWERS_CLASSES:
            booster.set_param({"objective": _ANSWERS_PROBABILITIES})
        with _of_age():
            # num_features configures the learner, which reads what load_model postponed.
            booster.num_features()
    except (xgboost.core.XGBoostError, ValueError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(file.name, f"not a model XGBoost can read: {reason}", "Save the bundle again.") from error
    return booster


def _padded(content: bytes) -> bytearray:
    """The content, with an end of UBJSON at which XGBoost finds no length that it could try to allocate.

    XGBoost does not look for the end, and would take a length that is cut off from whatever the memory holds.
    """
    padded = bytearray(content)
    if padded.startswith(b"{L"):
        padded += _NO_LENGTH
    return padded


def objective(booster: Any) -> str:
    """The name of the training objective, such as `binary:logistic`."""
    return str(_config(booster)["objective"]["name"])


def iterations(booster: Any) -> tuple[int, int]:
    """The boosting rounds to predict with: up to the best one if training stopped early, otherwise all, (0, 0)."""
    best = booster.attr("best_iteration")
    return (0, 0) if best is None else (0, int(best) + 1)


def kind(booster: Any) -> str:
    """The name of the booster: gbtree, dart (gbtree from XGBoost 3.4 on) or gblinear."""
    return str(_config(booster)["gradient_booster"]["name"])


def _config(booster: Any) -> dict[str, Any]:
    import msgspec

    with _of_age():
        learner: dict[str, Any] = msgspec.json.decode(booster.save_config())["learner"]
    return learner


@contextlib.contextmanager
def _of_age() -> Iterator[None]:
    """Silence XGBoost 3.4's warning about boosters that it will drop; whoever serves one can't change that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*`booster=(dart|gblinear)` is deprecated", UserWarning)
        yield


def _squeezed(values: Array) -> Array:
    """The values, without the groups' axis if there is only one group."""
    return values[:, 0] if values.shape[1] == 1 else values
