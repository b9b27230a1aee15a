"""Keep out of the process what a served model does not need."""

from __future__ import annotations

import importlib
import sys

import numpy

_BESIDES = ("sklearn", "pandas", "pyarrow", "dask", "matplotlib")
"""What XGBoost and LightGBM load where it is installed, for interfaces that a Booster does not need."""
_BESIDES_SCIPY = ("f2py", "ma", "polynomial", "testing")
"""What of numpy is loaded by the `from numpy import *` of scipy's array_api_compat, and used by nothing here."""


def import_booster(library: str) -> None:
    """Import XGBoost or LightGBM without what it and scipy load besides: most of a pod's start and of its memory.

    XGBoost in a process that has imported nothing else: 53 MiB instead of 163, 0.5 s instead of 3.2 (xgboost 3.2, numpy
    2.4, scipy 1.17; 2026-11-21). For the service's own process only: there is no XGBClassifier in it afterwards. What
    is loaded already stays, and the rest can be imported later.
    """
    if library in sys.modules:
        return
    hidden = [name for name in _BESIDES if name not in sys.modules]
    left_out = [name for name in _BESIDES_SCIPY if f"numpy.{name}" not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    vars(numpy).update(dict.fromkeys(left_out))  # numpy imports what is no attribute of it yet
    try:
        importlib.import_module(library)
    finally:
        for name in hidden:
            del sys.modules[name]
        for name in left_out:
            delattr(numpy, name)
