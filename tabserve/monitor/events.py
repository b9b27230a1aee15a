"""Tells a pipeline to retrain: one CloudEvent for each alarm."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

import msgspec

from tabserve.monitor.run import Report
from tabserve.monitor.verdict import Finding, told

TYPE = "tabserve.retrain.v1"
_SECONDS = 30.0


def event(report: Report, alarm: Finding, where: str) -> dict[str, Any]:
    """A CloudEvent 1.0 in its JSON form. where: the report. Its id names the alarm, so that it is never another's."""
    return {
        "specversion": "1.0",
        "type": TYPE,
        "source": f"tabserve/monitor/{report.name}",
        "id": alarm.alarm_id(report.digest),
        "time": report.made,
        "subject": alarm.what,
        "datacontenttype": "application/json",
        "data": {
            "name": report.name,
            "version": report.version,
            "digest": report.digest,
            "sentence": f"Retrain {report.name}: {told(alarm)} changed beyond chance and tolerance.",
            "report": where,
            **msgspec.to_builtins(alarm),
        },
    }


def send(url: str, report: Report, alarms: Sequence[Finding], where: str) -> list[str]:
    """Post one event for each alarm; the ids of those that were taken."""
    sent = []
    for alarm in alarms:
        made = event(report, alarm, where)
        headers = {"content-type": "application/cloudevents+json"}
        request = urllib.request.Request(url, msgspec.json.encode(made), headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS):
                sent.append(made["id"])
        except (OSError, HTTPException):
            continue  # it is told in the next run
    return sent
