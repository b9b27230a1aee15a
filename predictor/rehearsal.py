"""A first load of the model in a child process, which may crash without taking the reason with it."""

from __future__ import annotations

import os
import signal

from tabserve import engines
from tabserve.bundle import Bundle, BundleError


def rehearse(bundle: Bundle) -> None:
    """Load the engines in a forked child and forget them; a malformed model can crash XGBoost (dmlc/xgboost#7903).

    To be called before the process has threads of its own. Raises BundleError where the child died of a signal; what
    else is wrong with the bundle, loading it here will say.
    """
    child = os.fork()
    if child == 0:
        try:
            engines.load(bundle, threads=1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        file = bundle.manifest.model.file
        raise BundleError(file, f"crashed the library that loads it ({name})", "Save the bundle again.")
