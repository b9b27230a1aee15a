"""Compare the versions of the libraries that saved a bundle with the installed ones, without importing any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from tabserve import __version__
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import MANIFEST

_DISTRIBUTIONS = {"xgboost": ("xgboost", "xgboost-cpu")}
"""The distributions that a library may come from, where they are several; they write the same files."""
OLDEST = {"xgboost": "3.1"}
"""The oldest version that saves bundles, of a library that may be there without our extras."""
OF_ENGINE: dict[str, tuple[str, ...]] = {
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
    "sklearn": ("scikit-learn", "skops"),
    "onnxruntime": ("onnxruntime",),
    "onedal": ("xgboost", "scikit-learn-intelex"),
}


def installed(library: str) -> str | None:
    """The installed version of a library, None where it is not installed."""
    found = _distributions(library)
    if len(found) > 1:  # what they wrote last is there
        return _written(library)
    return next(iter(found.values()), None)


def versions(engines: Iterable[str]) -> str:
    """The versions of tabserve and of these engines' libraries: `tabserve 1.2.3, xgboost 3.1`."""
    needed = dict.fromkeys(library for engine in engines for library in OF_ENGINE[engine])
    found = {"tabserve": __version__, **{library: installed(library) for library in needed}}
    return ", ".join(f"{library} {number}" for library, number in found.items() if number)


def verify(libraries: Iterable[str], saved_with: Mapping[str, str]) -> None:
    """Refuse libraries that are missing, or older than those that saved the bundle. Raises BundleError."""
    for library in libraries:
        wanted = saved_with.get(library)
        if wanted is None:
            continue
        verify_whole(library)
        found = installed(library)
        if found is None:
            raise BundleError(MANIFEST, f"needs {library} {wanted}, which is not installed", f"Install {library}.")
        if _release(found) < _release(wanted):
            raise BundleError(
                MANIFEST,
                f"was saved with {library} {wanted}, but the older {found} is installed",
                f"Install {library} {wanted} or newer, or save the bundle again with {found}.",
            )


def verify_whole(library: str) -> None:
    """Refuse a library whose files are of two distributions, or gone with one of them. Raises BundleError."""
    found = _distributions(library)
    names = " and ".join(f"{name} {number}" for name, number in found.items())
    newest = max(found, key=lambda name: _release(found[name]), default="")
    if len(set(found.values())) > 1:
        first = f"pip uninstall -y {' '.join(found)}"
        remedy = f"Keep one of them: {first} && pip install {newest}=={found[newest]}."
        raise BundleError(library, f"{names} are installed, and write the same files", remedy)
    if library in _DISTRIBUTIONS and found and not _is_there(library):
        remedy = f"Install it again: pip install --force-reinstall --no-deps {newest}=={found[newest]}."
        raise BundleError(library, f"the files of {names} are gone, with another distribution's", remedy)


def verify_new_enough(library: str) -> None:
    """Refuse to save with a library that is older than what this package supports. Raises BundleError."""
    verify_whole(library)
    oldest, found = OLDEST.get(library), installed(library)
    if oldest is not None and found is not None and _release(found) < _release(oldest):
        remedy = f"Install a newer one: pip install '{next(iter(_distributions(library)))}>={oldest}'."
        raise BundleError(library, f"expected {oldest} or newer, got {found}", remedy)


def _is_there(library: str) -> bool:
    """Whether a library's package is there, and not only a folder with what was left of it."""
    spec = find_spec(library)
    return spec is not None and spec.origin is not None


def _distributions(library: str) -> dict[str, str]:
    """The versions of the installed distributions that bring a library."""
    found = {}
    for distribution in _DISTRIBUTIONS.get(library, (library,)):
        with suppress(PackageNotFoundError):
            found[distribution] = version(distribution)
    return found


def _written(library: str) -> str | None:
    """The version that a library's own files state, without importing it."""
    spec = find_spec(library)
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder) / "VERSION" for folder in folders or ()]
    return next((path.read_text().strip() for path in paths if path.is_file()), None)


def _release(text: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()
