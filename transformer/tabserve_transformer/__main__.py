"""`python -m tabserve_transformer`: serve decisions on records, through a predictor."""

from __future__ import annotations

import sys
from typing import NoReturn

from tabserve import bundle, extras
from tabserve.bundle.sizes import with_body_limit
from tabserve.inference import logs, server
from tabserve.inference.metrics import Metrics
from tabserve.inference.settings import command
from tabserve_transformer.model import load
from tabserve_transformer.settings import Settings


def serve(settings: Settings) -> None:
    """Load, and serve until a signal. Exits with status 1 and the reason if the bundle can't be served."""
    logs.configure(settings.log_level, settings.log_format, "transformer")
    metrics = Metrics()
    try:
        found = bundle.load(
            settings.model_dir,
            digest=settings.digest or None,
            allow_joblib=settings.allow_joblib,
            trusted=settings.trusted_types,
            opened=("preprocessor",),
        )
        settings = with_body_limit(settings, found)
        model = load(found, settings, metrics)
        if settings.server == "kserve" or settings.model_class:
            from tabserve import kserve_adapter
            from tabserve_transformer.kserve_model import TransformerModel

            kserve_adapter.run(model, settings, metrics, TransformerModel)
        else:
            server.run(model, settings, metrics)
    except bundle.UntrustedError as error:
        _end(settings, str(error.in_service()))
    except ModuleNotFoundError as error:
        if (told := extras.needs(error)) is None:
            raise
        _end(settings, str(told))
    except (bundle.BundleError, OSError, ValueError) as error:
        _end(settings, str(error))


def _end(settings: Settings, problem: str) -> NoReturn:
    sys.exit(logs.last_words("transformer", settings.log_format, problem))


main = command(Settings, serve, "Serve decisions on records over the Open Inference Protocol, through a predictor.")

if __name__ == "__main__":
    main()
