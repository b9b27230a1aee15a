"""Load a bundle's model in another process, because a malformed file can crash XGBoost (dmlc/xgboost#7903)."""

from __future__ import annotations

import argparse
import os
import signal
import sys

import msgspec

from tabserve.bundle import loading
from tabserve.bundle.checking import Finding
from tabserve.bundle.errors import BundleError, UntrustedError
from tabserve.bundle.loading import Bundle
from tabserve.engines.preprocessor import load_preprocessor
from tabserve.engines.selection import load, load_native


def verify_loads(bundle: Bundle) -> None:
    """Load the engines in a forked child and forget them.

    Call it before the process starts threads. Raises BundleError if a signal killed the child; anything else that is
    wrong with the bundle will show when it is loaded here.
    """
    child = os.fork()
    if child == 0:
        try:
            load(bundle, threads=1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        file = bundle.manifest.model.file
        raise BundleError(file, f"crashed the library that loads it ({name})", "Save the bundle again.")


def main(arguments: list[str]) -> None:
    """Load model and preprocessor in this process, for `bundle check`, and print the findings as JSON.

    The exit code is 0 even if a check failed.
    """
    parser = argparse.ArgumentParser(prog="python -m tabserve.engines.isolated", description=__doc__)
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
    """The findings for the model; its native engine is always loaded, as the first request that needs it would."""
    info = bundle.manifest.model
    try:
        native = load_native(bundle, threads=1)
        loaded = load(bundle)
    except UntrustedError as error:
        return [Finding("model", False, str(error.on_command_line()))]
    except BundleError as error:
        return [Finding("model", False, str(error))]
    plan = ", ".join(f"from {part.from_rows} rows {part.engine}" for part in info.engines)
    found = [Finding("model", True, f"{native.name} repeats the reference outputs; plan: {plan}")]
    return found + [Finding("engine", False, f"{reason} Save the bundle again.") for reason in loaded.dropped]


def _preprocessor(bundle: Bundle) -> Finding:
    try:
        load_preprocessor(bundle)
    except UntrustedError as error:
        return Finding("preprocessor", False, str(error.on_command_line()))
    except BundleError as error:
        return Finding("preprocessor", False, str(error))
    return Finding("preprocessor", True, "repeats the reference rows")


if __name__ == "__main__":
    main(sys.argv[1:])
