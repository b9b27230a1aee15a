"""Counts of pods from Prometheus, as looks at each pod in steps of a minute."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from operator import itemgetter
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from tabserve.inference.arms import SPLIT
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.scrape import COUNTED, LABELS, START, Scrape, Series, key, since

STEP_SECONDS = 60
EXAMPLE = 'namespace="models",pod=~"cancer-a-transformer-.*"'
_TIMEOUT_SECONDS = 30
_IGNORED = {"__name__", "arm", *LABELS}


def courses(url: str, matchers: str, seconds: float, until: float | None = None) -> list[list[dict[Series, float]]]:
    """What each pod of a slot has counted in each minute of these seconds, the oldest first.

    matchers: of the slot's pods, as between a query's braces. until: seconds since 1970; now where there are none.
    Raises RolloutError.
    """
    names = "|".join(COUNTED)
    asked = f'{{__name__=~"{names}",arm="{SPLIT}",{matchers}}}'
    counts, end = _ask(url, asked, seconds, until)
    starts, _ = _ask(url, f"{START}{{{matchers}}}", seconds, until)
    if not counts:
        remedy = f"Give the label matchers of a slot's pods, such as '{EXAMPLE}'."
        raise RolloutError(matchers, f"Prometheus has no counts of the split in {seconds / 60:g} minutes", remedy)
    edges = [end - seconds + STEP_SECONDS * step for step in range(1, int(seconds // STEP_SECONDS) + 1)]
    born = {_pod(each["metric"]): each["values"] for each in starts}
    pods: dict[tuple[tuple[str, str], ...], list[Any]] = {}
    for each in counts:
        pods.setdefault(_pod(each["metric"]), []).append(each)
    return [_course(series, born.get(pod, []), end - seconds, edges) for pod, series in pods.items()]


def _course(
    series: Sequence[Mapping[str, Any]], starts: Sequence[Sequence[Any]], begin: float, edges: Sequence[float]
) -> list[dict[Series, float]]:
    """What one pod counted up to each edge; what an older process had counted before its first sample is left out."""
    first = min(each["values"][0][0] for each in series)
    before = _look(series, starts, first)
    if before.start >= begin:
        before = Scrape(before.start, {})
    found = []
    for edge in edges:
        now = _look(series, starts, edge) if edge >= first else before
        found.append(since(now, before))
        before = now
    return found


def _look(series: Sequence[Mapping[str, Any]], starts: Sequence[Sequence[Any]], at: float) -> Scrape:
    """What a page of the pod would have shown at this time."""
    values = {key(each["metric"]["__name__"], each["metric"]): _last(each["values"], at) for each in series}
    counts = {name: value for name, value in values.items() if value is not None}
    return Scrape(_last(starts, at) or 0.0, counts)


def _last(values: Sequence[Sequence[Any]], edge: float) -> float | None:
    """The last value up to a time; they are in the order of time."""
    at = bisect_right(values, edge, key=itemgetter(0))
    return float(values[at - 1][1]) if at else None


def _pod(metric: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in metric.items() if name not in _IGNORED))


def _ask(url: str, selector: str, seconds: float, until: float | None) -> tuple[list[dict[str, Any]], float]:
    """The samples that a selector finds in these seconds, and the time of the last of them. Raises RolloutError."""
    query = {"query": f"{selector}[{int(seconds)}s]", **({} if until is None else {"time": str(until)})}
    remedy = "Give the URL of a Prometheus, such as http://prometheus.monitoring:9090, and matchers as in its queries."
    try:
        with urlopen(f"{url.rstrip('/')}/api/v1/query?{urlencode(query)}", timeout=_TIMEOUT_SECONDS) as response:
            found = json.load(response)["data"]["result"]
    except HTTPError as error:
        told = error.read(500).decode("utf-8", "replace")
        raise RolloutError(url, f"Prometheus refuses {query['query']} ({error.code}: {told})", remedy) from None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise RolloutError(url, f"no Prometheus answers there ({error})", remedy) from None
    ends = [each["values"][-1][0] for each in found]
    return found, until if until is not None else max(ends, default=0.0)
