"""`python -m tabserve_transformer`: serve decisions on records, through a predictor."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from tabserve import bundle, extras
from tabserve.bundle import Bundle, BundleError
from tabserve.bundle.compatible import compatible
from tabserve.bundle.ending import ending
from tabserve.bundle.sizes import with_body_limit
from tabserve.decision_log.entry import Log
from tabserve.inference import logs, server
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Model
from tabserve.inference.rest.home import Home
from tabserve.inference.settings import command
from tabserve.inference.tracing import Traced, tracing
from tabserve_transformer.model import load
from tabserve_transformer.settings import Settings

_WITH_ARROW = f"{extras.how('transformer-log')} An image has it if built with TRANSFORMER_EXTRA=transformer-log."


def serve(settings: Settings) -> None:
    """Load, and serve until a signal. Exits with status 1 and the reason if the bundle can't be served."""
    logs.configure(settings.log_level, settings.log_format, "transformer")
    metrics = Metrics()
    with ending("transformer", settings.log_format), tracing(settings, "transformer") as spans:
        found = bundle.load(
            settings.model_dir,
            digest=settings.digest or None,
            allow_joblib=settings.allow_joblib,
            trusted=settings.trusted_types,
            opened=("preprocessor",),
            signed_by=settings.trust_public_key or None,
        )
        settings = with_body_limit(settings, found)
        with _log(found, settings, metrics) as log:
            model = compatible(load(found, settings, metrics, log, spans), found, settings.compatible)
            home = _home(found, settings) if settings.page else None
            _run(model if spans is None else Traced(model, spans), settings, metrics, home)


def _log(found: Bundle, settings: Settings, metrics: Metrics) -> AbstractContextManager[Log | None]:
    """The log of decisions, if there is to be one."""
    if not settings.decision_log:
        return nullcontext()
    try:
        from tabserve_transformer.decision_log import open_log
    except ModuleNotFoundError as error:
        raise BundleError("decision_log", f"{error.name} is not installed", _WITH_ARROW) from error
    return open_log(found, settings, metrics)


def _home(found: Bundle, settings: Settings) -> Home:
    """The page for browsers, made once."""
    from tabserve.home import contents, page  # loads Jinja, which only services with a page need

    return page.page(contents.of_transformer(found, settings.model_name, settings.release))


def _run(model: Model, settings: Settings, metrics: Metrics, home: Home | None) -> None:
    if settings.model_class:
        from tabserve import kserve_adapter
        from tabserve_transformer.kserve_model import TransformerModel

        kserve_adapter.run(model, settings, metrics, TransformerModel)
    else:
        server.run(model, settings, metrics, home)


main = command(Settings, serve, "Serve decisions on records over the Open Inference Protocol, through a predictor.")

if __name__ == "__main__":
    main()
