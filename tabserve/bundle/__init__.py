"""The bundle: the folder that is released. What reads it is here; `tabserve.train` writes it."""

from tabserve.bundle.checking import Finding, check
from tabserve.bundle.errors import BundleError, UntrustedError
from tabserve.bundle.former_names import features, save
from tabserve.bundle.loading import Bundle, load
from tabserve.bundle.manifest import Manifest
from tabserve.bundle.signing import sign

__all__ = [
    "Bundle",
    "BundleError",
    "Finding",
    "Manifest",
    "UntrustedError",
    "check",
    "features",
    "load",
    "save",
    "sign",
]
