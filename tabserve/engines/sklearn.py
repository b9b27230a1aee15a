"""scikit-learn, asked through the estimator itself."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tabserve.bundle.errors import BundleError
from tabserve.engines import parity, trees
from tabserve.engines.engine import Array, Features

if TYPE_CHECKING:
    from tabserve.bundle.manifest import FeatureSpec, ModelInfo

# What skops does not know to be safe, and this module makes safe by looking at it before it is used.
# A dtype is read from an empty array, without unpickling; an optimizer holds arrays, and is not used to predict.
SAFE_TYPES = (
    "numpy.dtype",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    *trees.TYPES,
)
_AGAIN = "Save the bundle again."


class SklearnEngine:
    """An estimator or pipeline on a matrix of FP64, or on columns where it takes text."""

    name = "sklearn"

    def __init__(self, model: Any, info: ModelInfo, *, threads: int, reference: Features) -> None:
        """`reference`: rows to prove independence with, and to centre contributions on. Raises BundleError."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        threadpool_limits(threads)
        one_job(model)
        self._model = model
        self._present = presenter(info.features, info.frame)
        self._classifies = bool(info.classes)
        self.outputs = frozenset(info.outputs)
        self._contributions = (
            contributor(model, self._present, reference, info.features) if "contributions" in self.outputs else None
        )
        self.row_independent = self.name in info.row_independent and parity.rows_are_independent(self, reference)

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises whatever the estimator raises."""
        table = self._present(features)
        return {name: self._output(name, features, table) for name in outputs}

    def _output(self, name: str, features: Features, table: Any) -> Array:
        if name == "contributions" and self._contributions is not None:
            return self._contributions(features)
        if name == "predict" and self._classifies:
            answer = np.asarray(self._model.predict(table))
            return answer.astype(object) if answer.dtype.kind in "US" else answer
        method = {"predict_proba": "predict_proba", "margin": "decision_function", "predict": "predict"}[name]
        return np.asarray(getattr(self._model, method)(table), np.float64)


def read(path: Path, form: str, trusted: Sequence[str] = ()) -> Any:
    """The estimator in a skops file, or in a joblib file the caller allowed. Raises BundleError.

    trusted: types to load beside SAFE_TYPES and those skops knows to be safe.
    """
    if form == "joblib":
        return _unpickled(path)
    from skops.io import load
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        model = load(path, trusted=[*SAFE_TYPES, *trusted])
        trees.verify(model)
    except UntrustedTypesFoundException as error:
        listed = ", ".join(sorted(set(_untrusted(path)) - {*SAFE_TYPES, *trusted}))
        remedy = "Trust them by name (trusted=…) if you know them, or save a model without them."
        raise BundleError(path.name, f"holds types that are not trusted: {listed}", remedy) from error
    except (zipfile.BadZipFile, ValueError, TypeError, LookupError, AttributeError, ImportError, OSError) as error:
        raise BundleError(path.name, f"not a model skops can read: {error}", _AGAIN) from error
    return model


def presenter(features: Sequence[FeatureSpec], frame: str) -> Callable[[Features], Any]:
    """What turns features into the table an estimator was trained on: an array, or a DataFrame of its names."""
    if not frame:
        return lambda given: given
    import pandas

    names = [spec.name for spec in features]
    categories = {spec.name: spec.values for spec in features if spec.type == "category"}

    def table(given: Features) -> Any:
        if isinstance(given, np.ndarray):
            return pandas.DataFrame(given, columns=names)
        columns: dict[str, Any] = {name: given[name] for name in names}
        if frame == "category":
            columns |= {name: pandas.Categorical(given[name], list(categories[name])) for name in categories}
        return pandas.DataFrame(columns)

    return table


def one_job(model: Any) -> None:
    """Let no part start workers of its own: they cost more than a request, and add up in any order."""
    parameters = model.get_params(deep=True)
    jobs = {name: 1 for name in parameters if name == "n_jobs" or name.endswith("__n_jobs")}
    model.set_params(**jobs)


def contributor(
    model: Any, present: Callable[[Features], Any], reference: Features, specs: Sequence[FeatureSpec]
) -> Callable[[Features], Array] | None:
    """What computes exact contributions, None where nothing here does."""
    from tabserve.engines import forest, linear

    return linear.contributor(model, present, reference, specs) or forest.contributor(model, present, reference, specs)


def _untrusted(path: Path) -> list[str]:
    from skops.io import get_untrusted_types

    return list(get_untrusted_types(file=path))


def _unpickled(path: Path) -> Any:
    import pickle

    import joblib

    try:
        return joblib.load(path)
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        raise BundleError(path.name, f"not a model joblib can read: {error}", _AGAIN) from error
