"""The verdict as metrics for Prometheus."""

from __future__ import annotations

import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tabserve.monitor.run import Report
from tabserve.scoring.storage import RunError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = 30.0
_CHECK = ("what", "of", "measure")


def metrics(report: Report) -> bytes:
    """A page in Prometheus' text format: each check in the newest day, in the newest week and since the release."""
    registry = CollectorRegistry()
    facts = {"name": report.name, "version": report.version, "digest": report.digest}
    info = Gauge("tabserve_monitor_info", "The bundle that the log is compared with", [*facts], registry=registry)
    info.labels(**facts).set(1)
    Gauge("tabserve_monitor_records", "Decisions that were compared", registry=registry).set(report.records)
    distance, bound, tolerance = (
        Gauge(name, text, (*_CHECK, "window"), registry=registry)
        for name, text in (
            ("tabserve_monitor_distance", "Distance from the reference"),
            ("tabserve_monitor_bound", "How much of the distance may be chance"),
            ("tabserve_monitor_tolerance", "How much of the distance is no alarm"),
        )
    )
    alarm = Gauge(
        "tabserve_monitor_alarm", "Whether any window is beyond chance and tolerance", _CHECK, registry=registry
    )
    alarmed = {(each.what, each.of, each.measure) for each in report.alarms}
    for finding in report.findings:  # of the windows of a kind the newest comes last
        check = (finding.what, finding.of, finding.measure)
        alarm.labels(*check).set(check in alarmed)
        if finding.distance is not None and finding.bound is not None:
            distance.labels(*check, finding.window).set(finding.distance)
            bound.labels(*check, finding.window).set(finding.bound)
            tolerance.labels(*check, finding.window).set(finding.tolerance)
    return generate_latest(registry)


def push(url: str, page: bytes) -> None:
    """Replace the metrics at a URL, as a Pushgateway takes them. Raises RunError."""
    request = urllib.request.Request(url, page, {"content-type": CONTENT_TYPE}, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        # a URL, and what is said of one that is none, may have a password
        host, why = urlsplit(url).netloc.rpartition("@")[2], error if isinstance(error, OSError) else "no such URL"
        raise RunError(f"--push: {host} did not take the metrics: {why}. All else is done; run it again.") from error
