"""`python -m tabserve_predictor`: serve a bundle's model."""

from __future__ import annotations

from tabserve import bundle
from tabserve.bundle import Bundle
from tabserve.bundle.compatible import compatible
from tabserve.bundle.ending import ending
from tabserve.bundle.sizes import with_body_limit
from tabserve.engines.isolated import verify_loads
from tabserve.inference import logs, memory, server
from tabserve.inference.metrics import Metrics
from tabserve.inference.rest.home import Home
from tabserve.inference.settings import command
from tabserve.inference.tracing import tracing
from tabserve_predictor import imports
from tabserve_predictor.model import load
from tabserve_predictor.settings import Settings


def serve(settings: Settings) -> None:
    """Load, warm up, and serve until a signal. Exits with status 1 and the reason if the bundle can't be served."""
    logs.configure(settings.log_level, settings.log_format, "predictor")
    metrics = Metrics()
    with ending("predictor", settings.log_format), tracing(settings, "predictor") as spans:
        found = bundle.load(
            settings.model_dir,
            digest=settings.digest or None,
            allow_joblib=settings.allow_joblib,
            trusted=settings.trusted_types,
            opened=("model",),
            signed_by=settings.trust_public_key or None,
        )
        if found.manifest.model.native in ("xgboost", "lightgbm"):
            if not settings.model_class:
                imports.import_booster(found.manifest.model.native)
            verify_loads(found)
        settings = with_body_limit(settings, found)
        model = compatible(load(found, settings, metrics, spans), found, settings.compatible)
        memory.trim()
        if settings.model_class:
            from tabserve import kserve_adapter
            from tabserve_predictor.kserve_model import PredictorModel

            kserve_adapter.run(model, settings, metrics, PredictorModel)
        else:
            server.run(model, settings, metrics, _home(found, settings) if settings.page else None)


def _home(found: Bundle, settings: Settings) -> Home:
    """The page for browsers, made once."""
    from tabserve.home import contents, page  # loads Jinja, which only services with a page need

    return page.page(contents.of_predictor(found, settings.model_name, settings.release))


main = command(Settings, serve, "Serve a bundle's model over the Open Inference Protocol.")

if __name__ == "__main__":
    main()
