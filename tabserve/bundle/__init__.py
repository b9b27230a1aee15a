"""The bundle: the folder that is released, from `save` to a verified `load`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tabserve.bundle.errors import BundleError
from tabserve.bundle.loading import Bundle, load
from tabserve.bundle.manifest import Manifest

if TYPE_CHECKING:
    from tabserve.bundle.checking import Finding, check
    from tabserve.bundle.sampling import features
    from tabserve.bundle.saving import save

__all__ = ["Bundle", "BundleError", "Finding", "Manifest", "check", "features", "load", "save"]

_LATER = {"save": "saving", "check": "checking", "Finding": "checking", "features": "sampling"}


def __getattr__(name: str) -> Any:
    # save and check need the engines, which need this package: found when first asked for.
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
