"""What pods have counted: their pages of metrics, and the requests that came between two looks at one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.request import urlopen

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tabserve.arrays import Array
from tabserve.inference.arms import SPLIT
from tabserve.inference.metrics import LOGIT
from tabserve.rollout.checks import BOUNDS
from tabserve.rollout.errors import RolloutError

Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels, sorted."""
COUNTED = (
    "tabserve_requests_total",
    "tabserve_request_seconds_bucket",
    "tabserve_first_decision_total",
    "tabserve_first_class_total",
    "tabserve_first_score_bucket",
)
"""The samples that a canary is judged by."""
START = "process_start_time_seconds"
LABELS = ("protocol", "status", "le", "decision", "class")
_REFUSED = {
    *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED"),
    *("RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"),
}
_TIMEOUT_SECONDS = 10


class Scrape(NamedTuple):
    """One look at a pod: when its process started, and the split's counts so far."""

    start: float
    series: dict[Series, float]


@dataclass
class Tally:
    """Requests of the split that one slot answered.

    errors, refused: of all requests. timed, slower: requests whose latency is known, and how many took longer than each
    of BOUNDS. decisions: requests by their first row's. scores: by their first row's bin, between the bounds of LOGIT.
    """

    requests: float = 0
    errors: float = 0
    refused: float = 0
    timed: float = 0
    slower: Array = field(default_factory=lambda: np.zeros(len(BOUNDS)))
    decisions: dict[str, float] = field(default_factory=dict)
    scores: Array = field(default_factory=lambda: np.zeros(len(LOGIT) + 1))


def read(source: str, timeout: float = _TIMEOUT_SECONDS) -> Scrape:
    """One look at a pod, from the URL of its metrics or a file of them. Raises RolloutError."""
    try:
        if source.startswith(("http://", "https://")):
            with urlopen(source, timeout=timeout) as response:
                text = response.read().decode()
        else:
            text = Path(source).read_text()
    except (OSError, HTTPException, ValueError) as error:
        remedy = "Give the URL of a pod's metrics, http://POD:8082/metrics, or a file of them."
        raise RolloutError(source, f"no metrics can be read ({error})", remedy) from None
    return parse(text, source)


def parse(text: str, source: str) -> Scrape:
    """The counts in a page of metrics. Raises RolloutError if it is none, or not one of this version's services."""
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        remedy = "Give a page of metrics in Prometheus' text format."
        raise RolloutError(source, "is no page of metrics", remedy) from None
    series = {}
    start = 0.0
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == START:
            start = sample.value
        elif sample.name in COUNTED and sample.labels.get("arm") == SPLIT:
            series[key(sample.name, sample.labels)] = sample.value
    if not any(family.name.startswith("tabserve_") for family in families):
        remedy = "Give the metrics of a transformer or a predictor, which are on its admin port."
        raise RolloutError(source, "has no metrics of tabserve", remedy)
    return Scrape(start, series)


def key(name: str, labels: Mapping[str, str]) -> Series:
    """A sample's name and those of its labels that say what was counted."""
    return name, tuple((label, labels[label]) for label in LABELS if label in labels)


def since(new: Scrape, old: Scrape | None) -> dict[Series, float]:
    """What a pod has counted since the last look; all that it has if there was none, or if its process is another."""
    before = old.series if old is not None and old.start == new.start else {}
    grown = {series: value - before.get(series, 0.0) for series, value in new.series.items()}
    return {series: new.series[series] if more < 0 else more for series, more in grown.items()}


def tally(pods: Iterable[Mapping[Series, float]]) -> Tally:
    """The requests of one slot, from what each of its pods has counted."""
    total = Tally()
    found = [(name, dict(labels), value) for pod in pods for (name, labels), value in pod.items()]
    has_decisions = any(name == "tabserve_first_decision_total" for name, _, _ in found)
    cumulated, within = np.zeros(len(LOGIT) + 1), np.zeros(len(BOUNDS))
    for name, labels, value in found:
        if labels.get("protocol") == "repository":
            continue
        if name == "tabserve_requests_total":
            _count(total, labels["status"], value)
        elif name == "tabserve_request_seconds_bucket":
            _add(within, BOUNDS, float(labels["le"]), value)
            total.timed += value if labels["le"] == "+Inf" else 0
        elif name == "tabserve_first_score_bucket":
            _add(cumulated, (*LOGIT, np.inf), float(labels["le"]), value)
        elif name == "tabserve_first_decision_total" or not has_decisions:
            decision = labels.get("decision", labels.get("class", ""))
            total.decisions[decision] = total.decisions.get(decision, 0) + value
    total.slower = total.timed - within
    total.scores = np.diff(cumulated, prepend=0)
    return total


def _count(total: Tally, status: str, value: float) -> None:
    total.requests += value
    if status in _REFUSED or status.startswith("4"):
        total.refused += value
    elif status != "OK" and not status.startswith(("2", "3")):
        total.errors += value


def _add(counts: Array, bounds: tuple[float, ...], bound: float, value: float) -> None:
    if bound in bounds:
        counts[bounds.index(bound)] += value
