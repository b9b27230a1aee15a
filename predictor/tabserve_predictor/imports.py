"""Keep modules out of the process that a served model does not need."""

from __future__ import annotations

import importlib
import sys

import numpy

_BESIDES = ("sklearn", "pandas", "pyarrow", "dask", "matplotlib")
"""Modules that XGBoost and LightGBM load if they are installed, for interfaces that a Booster does not need."""
_BESIDES_SCIPY = ("f2py", "ma", "polynomial", "testing")
"""Parts of numpy that `from numpy import *` in scipy's array_api_compat loads, and that nothing here uses."""


def import_booster(library: str) -> None:
    """Import XGBoost or LightGBM without the optional modules that it and scipy load.

    These would take most of a pod's start and memory (`benchmarks/NOTES.md`, 2026-11-21). Only for a service's own
    process: it has no XGBClassifier afterwards. Modules that are already loaded stay, and others can be imported later.
    """
    if library in sys.modules:
        return
    hidden = [name for name in _BESIDES if name not in sys.modules]
    left_out = [name for name in _BESIDES_SCIPY if f"numpy.{name}" not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    vars(numpy).update(dict.fromkeys(left_out))  # numpy imports names that are not yet its attributes
    try:
        importlib.import_module(library)
    finally:
        for name in hidden:
            del sys.modules[name]
        for name in left_out:
            delattr(numpy, name)
