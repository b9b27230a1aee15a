"""Load a bundle's model and preprocessor in this process, for `check`, and print the findings as JSON."""

from __future__ import annotations

import argparse
import sys

import msgspec

from tabserve import engines
from tabserve.bundle import loading
from tabserve.bundle.checking import Finding
from tabserve.bundle.errors import BundleError
from tabserve.bundle.loading import Bundle


def main(arguments: list[str]) -> None:
    """Print a list of findings; the exit code is 0 also where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tabserve.bundle.trial", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("digest")
    parser.add_argument("--allow-joblib", action="store_true")
    parser.add_argument("--trusted", action="append", default=[])
    given = parser.parse_args(arguments)
    bundle = loading.load(given.folder, digest=given.digest, allow_joblib=given.allow_joblib, trusted=given.trusted)
    findings = _model(bundle)
    if bundle.manifest.preprocessor is not None and findings[0].ok:
        findings.append(_preprocessor(bundle))
    print(msgspec.json.encode(findings).decode(), flush=True)


def _model(bundle: Bundle) -> list[Finding]:
    """The native engine is loaded in any case, so that nothing is left for the first request that needs it."""
    info = bundle.manifest.model
    try:
        native = engines.load_native(bundle, threads=1)
        loaded = engines.load(bundle)
    except BundleError as error:
        return [Finding("model", False, str(error))]
    plan = ", ".join(f"from {part.from_rows} rows {part.engine}" for part in info.engines)
    found = [Finding("model", True, f"{native.name} repeats the reference outputs; plan: {plan}")]
    return found + [Finding("engine", False, f"{reason} Save the bundle again.") for reason in loaded.dropped]


def _preprocessor(bundle: Bundle) -> Finding:
    try:
        engines.load_preprocessor(bundle)
    except BundleError as error:
        return Finding("preprocessor", False, str(error))
    return Finding("preprocessor", True, "repeats the reference rows")


if __name__ == "__main__":
    main(sys.argv[1:])
