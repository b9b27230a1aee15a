"""Read scikit-learn's estimators from their files, and give them their features as in training."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.errors import BundleError, UntrustedError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines import shapes, skops_nodes, skops_types, states, tables
from tabserve.engines.trusted import TYPES

_AGAIN = "Save the bundle again."
_HOME = (
    "Put it into a package, and install that wherever the bundle is loaded: here, and in the images of both services."
)


def read(file: File, form: str, trusted: Sequence[str] = ()) -> Any:
    """The estimator in a skops file, or in a joblib file that the caller allowed. Raises BundleError.

    trusted: types to load besides the known safe ones.
    """
    if form == "joblib":
        return _unpickled(file)
    from skops.io import loads
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        skops_nodes.verify(file.content)
        model = loads(file.content, trusted=[*TYPES, *trusted])
        skops_types.verify(model)
        states.verify(model)
        shapes.verify(model)
    except UntrustedTypesFoundException as error:
        raise UntrustedError(file.name, sorted(untrusted(file) - {*trusted})) from error
    except ModuleNotFoundError as error:
        raise _without_module(file.name, error) from error
    except (
        zipfile.BadZipFile,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ImportError,
        OSError,
        RuntimeError,
        MemoryError,
        zlib.error,
    ) as error:
        raise BundleError(file.name, f"not a model skops can read: {error}", _AGAIN) from error
    return model


def untrusted(file: File) -> set[str]:
    """The types in a skops file that neither skops nor tabserve knows to be safe; nothing in it is loaded."""
    from skops.io import get_untrusted_types

    return set(get_untrusted_types(data=file.content)) - TYPES


_METHODS = {"margin": "decision_function", "anomaly_score": "decision_function"}


def can_answer(estimator: Any, output: str) -> bool:
    """Whether an estimator has the method that an output comes from."""
    return hasattr(estimator, _METHODS.get(output, output))


def answer(estimator: Any, output: str, table: Any) -> Array:
    """One output of an estimator: `predict`, `predict_proba`, `margin` or `anomaly_score`.

    The anomaly score is the decision function with its sign reversed: higher is stranger, and the model's own limit is
    0. Raises whatever the estimator raises.
    """
    found = np.asarray(getattr(estimator, _METHODS.get(output, output))(table))
    if output == "anomaly_score":
        return -found
    return found[:, 0] if output == "predict" and found.ndim == 2 and found.shape[1] == 1 else found


def presenter(features: Sequence[FeatureSpec], frame: str) -> Callable[[Features], Any]:
    """A function from features to the table an estimator was trained on, as `frame` and the specs' dtypes say."""
    return tables.table(features, frame) if frame else lambda given: given


def one_job(model: Any) -> None:
    """Set every part to one worker: starting workers costs more than a request, and they add up in any order."""
    parameters = model.get_params(deep=True)
    jobs = {name: 1 for name in parameters if name == "n_jobs" or name.endswith("__n_jobs")}
    model.set_params(**jobs)


def _without_module(name: str, error: ModuleNotFoundError) -> BundleError:
    return BundleError(name, f"needs the module `{error.name}`, which is not installed here", _HOME)


def _unpickled(file: File) -> Any:
    """The estimator in a joblib file, which runs its author's code. Raises BundleError."""
    import pickle

    import joblib

    try:
        return joblib.load(io.BytesIO(file.content))
    except ModuleNotFoundError as error:
        raise _without_module(file.name, error) from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        raise BundleError(file.name, f"not a model joblib can read: {error}", _AGAIN) from error
