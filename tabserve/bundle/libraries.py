"""Compare the versions of the libraries that saved a bundle with the installed ones, without importing any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import MANIFEST

# A library may come from a distribution with another name.
_DISTRIBUTIONS = {"xgboost": ("xgboost", "xgboost-cpu")}
OF_ENGINE: dict[str, tuple[str, ...]] = {
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
    "sklearn": ("scikit-learn", "skops"),
    "onnxruntime": ("onnxruntime",),
}


def installed(library: str) -> str | None:
    """The installed version of a library, None where it is not installed."""
    for distribution in _DISTRIBUTIONS.get(library, (library,)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def verify(libraries: Iterable[str], saved_with: Mapping[str, str]) -> None:
    """Refuse libraries that are missing, or older than those that saved the bundle. Raises BundleError."""
    for library in libraries:
        found, wanted = installed(library), saved_with.get(library)
        if wanted is None:
            continue
        if found is None:
            raise BundleError(MANIFEST, f"needs {library} {wanted}, which is not installed", f"Install {library}.")
        if _release(found) < _release(wanted):
            raise BundleError(
                MANIFEST,
                f"was saved with {library} {wanted}, but the older {found} is installed",
                f"Install {library} {wanted} or newer, or save the bundle again with {found}.",
            )


def _release(text: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()
