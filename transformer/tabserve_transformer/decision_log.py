"""The transformer's decision log, from its settings. It needs Arrow; a transformer without a log does not import it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tabserve.bundle import Bundle, BundleError
from tabserve.decision_log import kafka_keys, opening
from tabserve.decision_log.options import LogOptions
from tabserve.decision_log.writer import DecisionLog
from tabserve.inference.metrics import Metrics
from tabserve_transformer.settings import Settings


@contextmanager
def open_log(bundle: Bundle, settings: Settings, metrics: Metrics) -> Iterator[DecisionLog]:
    """The log while the service runs; then it is closed. Raises BundleError if a setting does not fit."""
    opening.verify(bundle, settings.always_logged, "decision_log_always")
    if settings.decision_log_buffer_rows < settings.max_rows:
        problem = f"{settings.decision_log_buffer_rows} rows are less than a request may have"
        raise BundleError("decision_log_buffer_rows", problem, f"Set it to at least max_rows, {settings.max_rows}.")
    with opening.open_log(bundle, options(settings), metrics) as log:
        yield log


def options(settings: Settings) -> LogOptions:
    """The log's options. Raises BundleError for a file of Kafka's keys that cannot be used."""
    return LogOptions(
        to=settings.decision_log,
        sample=settings.decision_log_sample,
        always=settings.always_logged,
        buffer_rows=settings.decision_log_buffer_rows,
        buffer_bytes=settings.decision_log_buffer_bytes,
        file_seconds=settings.decision_log_file_seconds,
        file_rows=settings.decision_log_file_rows,
        kafka=kafka_keys.read(settings.decision_log_kafka_file, "decision_log_kafka_file"),
    )
