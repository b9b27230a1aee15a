"""Name the extra that a missing module comes with, and say how to install it."""

from __future__ import annotations

OF_MODULE = {
    "confluent_kafka": "stream",
    "cryptography": "serve",
    "gevent": "loadtest",
    "hdrh": "loadtest",
    "jinja2": "report",
    "kserve": "kserve",
    "kubernetes": "doctor",
    "lightgbm": "lightgbm",
    "locust": "loadtest",
    "matplotlib": "loadtest",
    "opentelemetry": "tracing",
    "onnx": "train",
    "onnxmltools": "train",
    "onnxruntime": "serve",
    "pandas": "serve",
    "pyarrow": "batch",
    "pyspark": "spark",
    "skl2onnx": "train",
    "sklearn": "serve",
    "skops": "serve",
    "xgboost": "serve",
}
"""The extra by the module that it brings; the one that most need, where several do."""


def how(extra: str) -> str:
    """A sentence that says how to install an extra."""
    return f"In a checkout of tabserve, run: pip install '.[{extra}]' (see docs/install.md)."


def needs(error: ModuleNotFoundError) -> str | None:
    """What is missing, and how to install it; None for a module that is of no extra."""
    module = (error.name or "").partition(".")[0]
    extra = OF_MODULE.get(module)
    return None if extra is None else f"{module} is not installed. {how(extra)}"
