"""Open a decision log for a process that decides, and close it when that ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from tabserve import extras
from tabserve.bundle import Bundle, BundleError
from tabserve.bundle.tensors import class_names
from tabserve.decision_log import record
from tabserve.decision_log.files import Files
from tabserve.decision_log.options import LogOptions
from tabserve.decision_log.outputs import Outputs
from tabserve.decision_log.sinks import KAFKA, sink
from tabserve.decision_log.writer import DecisionLog
from tabserve.inference.metrics import Metrics

_IN_IMAGE = "A transformer's image has it if built with TRANSFORMER_EXTRA=transformer-log-kafka."
_WITH_KAFKA = f"{extras.how('transformer-log-kafka')} {_IN_IMAGE}"
CLOSE_SECONDS = 5.0
"""How long the log may take to write what it has, after the drain; the chart's grace period has room for it."""


@contextmanager
def open_log(bundle: Bundle, options: LogOptions, metrics: Metrics) -> Iterator[DecisionLog]:
    """The log while the process runs; then it is closed. Raises BundleError if it cannot be written to.

    If its sink hangs, the process ends here and at once: Arrow would wait for the sink.
    """
    encode = partial(record.table, columns=record.schema(bundle))
    log = DecisionLog(_outputs(options), encode, options, metrics)
    log.start()
    try:
        yield log
    finally:
        ended = log.close(CLOSE_SECONDS)
    if not ended:
        logging.shutdown()
        os._exit(0)


def _outputs(options: LogOptions) -> Outputs:
    """Where the log goes. Raises BundleError if that is no place for it."""
    if not options.to.startswith(KAFKA):
        return Files(sink(options.to))
    try:
        from tabserve.decision_log.kafka import KafkaOutputs
    except ModuleNotFoundError as error:
        raise BundleError("decision_log", f"{error.name} is not installed", _WITH_KAFKA) from error
    return KafkaOutputs(options.to, options.kafka)


def verify(bundle: Bundle, always: Sequence[str], setting: str) -> None:
    """Raise BundleError if one of these is no decision of the bundle. setting: what names them."""
    decision = bundle.schema.outputs.decision
    bands = [band.label for band in decision.bands] if decision else []
    known = bands or list(class_names(bundle))
    unknown = [name for name in always if name not in known]
    if unknown:
        listed = f"Its decisions are {', '.join(known)}." if known else "It has none, so leave the setting empty."
        raise BundleError(setting, f"the bundle has no decision {unknown[0]}", listed)
