"""How a service ends whose bundle cannot be served."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from tabserve import extras
from tabserve.bundle.errors import BundleError, UntrustedError
from tabserve.inference import logs


@contextmanager
def ending(service: str, form: str) -> Generator[None]:
    """End the process with status 1 and the reason if a bundle, a setting or a port is not usable.

    service: its name in the log, whose form is `json` or `text`.
    """
    try:
        yield
        return
    except UntrustedError as error:
        problem = str(error.in_service())
    except ModuleNotFoundError as error:
        if (told := extras.needs(error)) is None:
            raise
        problem = told
    except (BundleError, OSError, ValueError) as error:
        problem = str(error)
    sys.exit(logs.last_words(service, form, problem))
