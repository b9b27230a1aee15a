"""Metrics: counts, buckets and Prometheus' format."""

from __future__ import annotations

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tabserve.inference.metrics import Counter, Gauge, Histogram, Info, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(metrics.page().decode())
    return {(s.name, tuple(sorted(s.labels.values()))): s.value for family in families for s in family.samples}


def test_counters_and_gauges() -> None:
    metrics = Metrics()
    metrics.requests.add("rest", "200", "split")
    metrics.requests.add("rest", "200", "split")
    metrics.requests.add("grpc", "OK", "forced", count=3)
    held = 6
    metrics.add(Gauge("held", "", lambda: held))
    held += 1

    found = samples(metrics)
    assert found["tabserve_requests_total", ("200", "rest", "split")] == 2
    assert found["tabserve_requests_total", ("OK", "forced", "grpc")] == 3
    assert found["held", ()] == 7


def test_a_histogram_counts_a_value_at_a_bound_in_its_bucket() -> None:
    metrics = Metrics()
    one, all_at_once = Histogram("one", "", (1, 2)), Histogram("all_at_once", "", (1, 2))
    metrics.add(one, all_at_once)
    values = [0.5, 1, 1.5, 9]
    for value in values:
        one.observe(value)
    all_at_once.observe_all(np.array(values))

    found = samples(metrics)
    for name in ("one", "all_at_once"):
        assert [found[f"{name}_bucket", (bound,)] for bound in ("1.0", "2.0", "+Inf")] == [2, 3, 4]
        assert found[f"{name}_sum", ()] == 12


def test_the_page_tells_of_the_process_and_of_facts() -> None:
    metrics = Metrics()
    metrics.add(Info("tabserve_model", "The model", {"digest": "sha256:1"}), Counter("other", ""))

    found = samples(metrics)
    assert found["tabserve_model_info", ("sha256:1",)] == 1
    assert found["process_resident_memory_bytes", ()] > 0


def test_latencies_under_a_millisecond_are_told_apart() -> None:
    metrics = Metrics()
    metrics.seconds.observe(0.00008, "rest", "split")
    metrics.seconds.observe(0.0004, "rest", "split")

    found = samples(metrics)
    assert found["tabserve_request_seconds_bucket", ("0.0001", "rest", "split")] == 1
    assert found["tabserve_request_seconds_bucket", ("0.0005", "rest", "split")] == 2
