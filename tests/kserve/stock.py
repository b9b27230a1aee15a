"""Our models under the stock kserve.ModelServer, started in Python as a user would: `python -m tests.kserve.stock`."""

from __future__ import annotations

import argparse
import pkgutil

import kserve

import tabserve.bundle
import tabserve_predictor.model
import tabserve_transformer.model
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Model
from tabserve_predictor.settings import Settings as PredictorSettings
from tabserve_transformer.settings import Settings as TransformerSettings


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_dir")
    parser.add_argument("--model_class", help="module:Class, of hooks or of the adapters themselves")
    parser.add_argument("--predictor_host", help="given for a transformer")
    parser.add_argument("--http_port", type=int)
    parser.add_argument("--grpc_port", type=int)
    options, _ = parser.parse_known_args()
    bundle = tabserve.bundle.load(options.model_dir)
    core: Model
    if options.predictor_host:
        settings = TransformerSettings(predictor_host=options.predictor_host)
        core = tabserve_transformer.model.load(bundle, settings, Metrics())
    else:
        core = tabserve_predictor.model.load(bundle, PredictorSettings(), Metrics())
    model = pkgutil.resolve_name(options.model_class)(core)
    kserve.ModelServer(http_port=options.http_port, grpc_port=options.grpc_port, workers=1).start([model])


if __name__ == "__main__":
    main()
