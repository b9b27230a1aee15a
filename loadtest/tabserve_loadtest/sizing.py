"""Derive the chart's values from measured capacity, with the derivation next to every number."""

from __future__ import annotations

import math

import msgspec

from tabserve_loadtest.document import Document

HEADROOM = 0.7
MEMORY_HEADROOM = 1.5


class SizingError(Exception):
    """The report holds nothing to derive values from; the message is for the user."""


class Pod(msgspec.Struct, frozen=True):
    """A measured pod: the requests/s it holds, the CPU it may use in cores, the memory it used in MiB."""

    capacity: float
    cpu: float
    memory: float


def capacity(document: Document) -> float:
    """The capacity that a run's `ramp` found, in requests per second. Raises SizingError."""
    found = [s.figures.get("capacity_rps", 0.0) for s in document.sections if s.scenario == "ramp"]
    if not found or not found[0]:
        raise SizingError("expected a report of the scenario `ramp` that held at least one rate")
    return found[0]


def replicas(pod: Pod, peak: float) -> int:
    """The fewest pods that hold the peak rate at 70 % of their capacity, with one of them lost."""
    return math.ceil(peak / (pod.capacity * HEADROOM)) + 1


def snippet(pod: Pod, peak: float, reaction: float | None) -> str:
    """Values for charts/tabserve, each with a comment that explains it.

    peak: requests per second to be served. reaction: seconds until a new pod is ready, as `autoscale` measured it.
    """
    per_pod = pod.capacity * HEADROOM
    fewest = replicas(pod, peak)
    millicores, memory = round(pod.cpu * 1000), math.ceil(pod.memory * MEMORY_HEADROOM / 64) * 64
    waited = f"; a new pod is ready after {reaction:.0f} s (autoscale), until then the others carry" if reaction else ""
    return f"""\
# One pod of {millicores}m holds {pod.capacity:.4g} requests/s within the objectives (ramp).
# Planned load per pod: {HEADROOM:.0%} of that = {per_pod:.4g} requests/s, so that a burst breaches nothing{waited}.
predictor:
  resources:
    # The CPU the capacity was measured with. Memory: the measured {pod.memory:g} MiB and half as much again.
    requests: {{cpu: {millicores}m, memory: {memory}Mi}}
    # Twice the memory, for a batch of the largest size.
    limits: {{cpu: {millicores}m, memory: {2 * memory}Mi}}
  autoscaling:
    enabled: true
    # {peak:g} / {per_pod:.4g}, rounded up, is {fewest - 1} for the peak; and 1 that may be lost.
    minReplicas: {fewest}
    # Twice that: room for a peak that was not foreseen.
    maxReplicas: {2 * fewest}
    # Percent of the request that a pod uses at its planned load.
    targetCPUUtilization: {round(HEADROOM * 100)}
knative:
  minReplicas: {fewest}
  maxReplicas: {2 * fewest}
  scaleMetric: rps
  # The planned load of a pod.
  scaleTarget: {max(1, math.floor(per_pod))}
"""
