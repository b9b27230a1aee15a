"""Names from 0.1 that have moved to `tabserve.train`; 0.3 will remove them here."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def save(*arguments: Any, **options: Any) -> Any:
    """Do what `tabserve.train.save` does, with a DeprecationWarning."""
    return _moved("save")(*arguments, **options)


def features(*arguments: Any, **options: Any) -> Any:
    """Do what `tabserve.train.features` does, with a DeprecationWarning."""
    return _moved("features")(*arguments, **options)


def _moved(name: str) -> Any:
    """Import by name, since a bundle is read where nothing can be trained."""
    warnings.warn(f"tabserve.bundle.{name} is now tabserve.train.{name}", DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module("tabserve.train"), name)
