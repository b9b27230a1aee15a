"""The transformer's decision log, from its settings. It needs Arrow; a transformer without a log does not import it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tabserve.bundle import Bundle, BundleError
from tabserve.bundle.tensors import class_names
from tabserve.decision_log import record
from tabserve.decision_log.sinks import sink
from tabserve.decision_log.writer import DecisionLog, Options
from tabserve.inference.metrics import Metrics
from tabserve_transformer.settings import Settings

CLOSE_SECONDS = 5.0
"""How long the log may take to write what it has, after the drain; the chart's grace period has room for it."""


@contextmanager
def open_log(bundle: Bundle, settings: Settings, metrics: Metrics) -> Iterator[DecisionLog]:
    """The log while the service runs; then it is closed. Raises BundleError if a setting does not fit.

    If its sink hangs, the process ends here and at once: Arrow would wait for the sink.
    """
    _verify(bundle, settings)
    encode = partial(record.table, columns=record.schema(bundle))
    log = DecisionLog(sink(settings.decision_log), encode, options(settings), metrics)
    log.start()
    try:
        yield log
    finally:
        ended = log.close(CLOSE_SECONDS)
    if not ended:
        logging.shutdown()
        os._exit(0)


def options(settings: Settings) -> Options:
    """The log's options."""
    return Options(
        sample=settings.decision_log_sample,
        always=settings.always_logged,
        buffer_rows=settings.decision_log_buffer_rows,
        buffer_bytes=settings.decision_log_buffer_bytes,
        file_seconds=settings.decision_log_file_seconds,
        file_rows=settings.decision_log_file_rows,
    )


def _verify(bundle: Bundle, settings: Settings) -> None:
    """Raise BundleError if `always` names no decision of the bundle, or a request may be larger than the buffer."""
    decision = bundle.schema.outputs.decision
    bands = [band.label for band in decision.bands] if decision else []
    known = bands or list(class_names(bundle))
    unknown = [name for name in settings.always_logged if name not in known]
    if unknown:
        listed = f"Its decisions are {', '.join(known)}." if known else "It has none, so leave the setting empty."
        raise BundleError("decision_log_always", f"the bundle has no decision {unknown[0]}", listed)
    if settings.decision_log_buffer_rows < settings.max_rows:
        problem = f"{settings.decision_log_buffer_rows} rows are less than a request may have"
        raise BundleError("decision_log_buffer_rows", problem, f"Set it to at least max_rows, {settings.max_rows}.")
