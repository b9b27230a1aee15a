"""Keep out of the process what a served model does not need."""

from __future__ import annotations

import ctypes
import gc
import sys


def import_xgboost() -> None:
    """Import XGBoost without the scikit-learn and pandas that it loads where they are installed.

    Its scikit-learn interface, which a Booster does not need, would be most of a pod's start and half of its memory
    (xgboost 3.2, 2026-11-21: 107 MiB instead of 215). For the service's own process only: there is no XGBClassifier
    in it afterwards. What is loaded already stays.
    """
    if "xgboost" in sys.modules:
        return
    hidden = [name for name in ("sklearn", "pandas") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    try:
        import xgboost  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


def give_back() -> None:
    """Hand what loading has freed back to the kernel, where the C library can (glibc's malloc_trim)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
