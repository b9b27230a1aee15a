"""scikit-learn's estimators: read from their file, and given their features as they were in training."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tabserve.arrays import Features
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines import skops_types, tables

# What skops does not know to be safe, and this module makes safe by looking at it before it is used.
# A dtype is read from an empty array, without unpickling; an optimizer holds arrays, and is not used to predict.
SAFE_TYPES = (
    "numpy.dtype",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    *skops_types.TYPES,
)
_AGAIN = "Save the bundle again."


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
        skops_types.verify(model)
    except UntrustedTypesFoundException as error:
        listed = ", ".join(sorted(set(_untrusted(path)) - {*SAFE_TYPES, *trusted}))
        remedy = "Trust them by name (trusted=…) if you know them, or save a model without them."
        raise BundleError(path.name, f"holds types that are not trusted: {listed}", remedy) from error
    except (zipfile.BadZipFile, ValueError, TypeError, LookupError, AttributeError, ImportError, OSError) as error:
        raise BundleError(path.name, f"not a model skops can read: {error}", _AGAIN) from error
    return model


def presenter(features: Sequence[FeatureSpec], frame: str) -> Callable[[Features], Any]:
    """What turns features into the table an estimator was trained on, as `frame` and the specs' dtypes have it."""
    return tables.table(features, frame) if frame else lambda given: given


def one_job(model: Any) -> None:
    """Let no part start workers of its own: they cost more than a request, and add up in any order."""
    parameters = model.get_params(deep=True)
    jobs = {name: 1 for name in parameters if name == "n_jobs" or name.endswith("__n_jobs")}
    model.set_params(**jobs)


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
