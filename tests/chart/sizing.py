"""The tables of docs/operations.md on sizing, cost and many models; `make sizing` writes them.

What a process takes is measured (benchmarks/results/footprint), and what a pod asks for is rendered from the chart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from statistics import median
from typing import Any, NamedTuple

from benchmarks import footprints
from benchmarks.footprints import Footprint, Process
from tests.chart.helm import program, rendered
from tests.serving import ROOT

PAGE = ROOT / "docs" / "operations.md"
RATES = (100, 1_000, 10_000)
TARGET = 0.8
"""The chart's `targetCPUUtilization`."""
CORE_HOUR, GIB_HOUR = 0.03, 0.004
"""Prices of the worked example."""
MODELS = 50
UNITS = {"m": 1e-3, "Mi": 1.0, "Gi": 1024.0, "": 1.0}
ONE: dict[str, Any] = {"pods": {"autoscaling": {"minReplicas": 1}}}
COLLOCATED: dict[str, Any] = {"transformer": {"placement": "collocated"}}
KNATIVE: dict[str, Any] = {"mode": "Knative", **COLLOCATED}
DEPLOYED: dict[str, dict[str, Any]] = {
    "`Standard`, `separate`: the default": {},
    "the same, `pods.autoscaling.minReplicas: 1`": ONE,
    "`Standard`, `collocated`": COLLOCATED,
    "the same, `pods.autoscaling.minReplicas: 1`: one pod for a model": {**COLLOCATED, **ONE},
    "`Standard`, `none`: tensors, no records": {"transformer": {"placement": "none"}},
    "`Knative`, `collocated`": KNATIVE,
    "the same, `knative.minReplicas: 0`, while nobody asks": {**KNATIVE, "knative": {"minReplicas": 0}},
}


class Workload(NamedTuple):
    """The pods of a slot that are alike: their fewest, what one asks for in cores and MiB, and its services."""

    pods: int
    cores: float
    memory: float
    services: tuple[str, ...]


def workloads(values: dict[str, Any]) -> dict[str, Workload]:
    """The workloads of a release with one slot, by component."""
    objects = rendered(values, program())
    (service,) = (item["spec"] for item in objects if item["kind"] == "InferenceService")
    (runtime,) = (item["spec"] for item in objects if item["kind"] == "ServingRuntime")
    containers = {name: part.get("containers", runtime["containers"]) for name, part in service.items()}
    return {name: _workload(service[name]["minReplicas"], name, found) for name, found in containers.items()}


@cache
def default() -> dict[str, Workload]:
    """The workloads with the chart's own values."""
    return workloads({})


def _workload(pods: int, component: str, containers: Sequence[dict[str, Any]]) -> Workload:
    asked = [container["resources"]["requests"] for container in containers]
    services = ("predictor", "transformer") if len(containers) == 2 else (component,)
    cores, memory = (sum(_quantity(each[resource]) for each in asked) for resource in ("cpu", "memory"))
    return Workload(pods, cores, memory, services)


def _quantity(text: str) -> float:
    found = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|)", text)
    assert found is not None, text
    return float(found[1]) * UNITS[found[2]]


def pods(workload: Workload, of: Process, rate: float) -> int:
    """How many pods the autoscaler makes for so many decisions a second."""
    return max(workload.pods, math.ceil(rate * of.cpu * 1e-6 / (workload.cores * TARGET)))


def both(found: Footprint, rate: float) -> list[tuple[Workload, int]]:
    """The workloads of both services, each with its pods for so many decisions a second."""
    each = [(default()[name], getattr(found, name)) for name in ("transformer", "predictor")]
    return [(workload, pods(workload, process, rate)) for workload, process in each]


def hourly(cores: float, memory: float) -> float:
    """The price of cores and MiB for an hour."""
    return cores * CORE_HOUR + memory / 1024 * GIB_HOUR


def per_million(found: Footprint, rate: float) -> float:
    """The price of a million decisions where pods have what they ask for, at a steady rate."""
    price = sum(count * hourly(each.cores, each.memory) for each, count in both(found, rate))
    return price / (3600 * rate) * 1e6


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def _sizing(found: Sequence[Footprint]) -> str:
    head = ("model", "decisions/s of a core", "transformer, µs", "predictor, µs", *_rates("pods for {}/s"))
    return _table(head, (_sized(each) for each in found))


def _sized(found: Footprint) -> tuple[str, ...]:
    cpu = (found.transformer.cpu, found.predictor.cpu)
    counts = [" + ".join(str(count) for _, count in both(found, rate)) for rate in RATES]
    return (found.model, f"{1e6 / sum(cpu):,.0f}", *(f"{each:.0f}" for each in cpu), *counts)


def _cost(found: Sequence[Footprint]) -> str:
    head = ("model", "core-hours of CPU time", "their price", *_rates("as deployed, at {}/s"))
    return _table(head, (_priced(each) for each in found))


def _priced(found: Footprint) -> tuple[str, ...]:
    hours = (found.transformer.cpu + found.predictor.cpu) / 3600
    return (
        found.model,
        f"{hours:.3f}",
        f"{hours * CORE_HOUR:.4f}",
        *(f"{per_million(found, rate):.3f}" for rate in RATES),
    )


def _rates(text: str) -> list[str]:
    return [text.format(f"{rate:,}") for rate in RATES]


def _many(found: Sequence[Footprint]) -> str:
    head = ("deployed as", "pods", "CPU requests, cores", "memory requests, GiB", "memory measured, GiB")
    resident = {name: median(getattr(each, name).loaded for each in found) for name in ("transformer", "predictor")}
    return _table(head, (_deployed(name, workloads(values), resident) for name, values in DEPLOYED.items()))


def _deployed(name: str, found: dict[str, Workload], resident: dict[str, float]) -> tuple[str, ...]:
    def total(what: Callable[[Workload], float]) -> float:
        return MODELS * sum(each.pods * what(each) for each in found.values())

    measured = total(lambda each: sum(resident[service] for service in each.services))
    figures = (total(lambda each: each.cores), total(lambda each: each.memory) / 1024, measured / 1024)
    return (name, f"{total(lambda each: 1):g}", *(f"{figure:.3g}" for figure in figures))


TABLES: dict[str, Callable[[Sequence[Footprint]], str]] = {"sizing": _sizing, "cost": _cost, "many": _many}


def written(page: str, names: Iterable[str] = TABLES) -> str:
    """The page with its tables as they are now."""
    found = footprints.read().models
    for name in names:
        begin, end = f"<!-- {name}: written by `make sizing` -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        assert after, f"expected {begin!r} and {end!r}"
        page = f"{before}{begin}{TABLES[name](found)}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
