"""`python -m predictor`: serve a bundle's model."""

from __future__ import annotations

import sys

from predictor import lean
from predictor.model import load
from predictor.rehearsal import rehearse
from predictor.settings import Settings
from tabserve import bundle
from tabserve.inference import server
from tabserve.inference.metrics import Metrics
from tabserve.inference.settings import command


def serve(settings: Settings) -> None:
    """Load, warm up, serve until a signal. Ends with status 1 and the reason where the bundle can't be served."""
    server.configure_logging(settings.log_level)
    metrics = Metrics()
    hooked = settings.server == "kserve" or bool(settings.model_class)
    try:
        found = bundle.load(settings.model_dir, digest=settings.digest or None, allow_joblib=settings.allow_joblib)
        if found.manifest.model.native == "xgboost":
            if not hooked:
                lean.import_xgboost()
            rehearse(found)
        model = load(found, settings, metrics)
        lean.give_back()
        if hooked:
            from predictor.kserve_model import PredictorModel
            from tabserve import kserve_adapter

            kserve_adapter.run(model, settings, metrics, PredictorModel)
        else:
            server.run(model, settings, metrics)
    except (bundle.BundleError, OSError, ValueError) as error:
        sys.exit(f"predictor: {error}")


main = command(Settings, serve, "Serve a bundle's model over the Open Inference Protocol.")

if __name__ == "__main__":
    main()
