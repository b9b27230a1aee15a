"""The loop of examples/payments/lifecycle: served, logged, found, trained again, served."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from examples.payments.lifecycle.handler import Handler, put
from examples.payments.lifecycle.payments import of_days
from tabserve.bundle import Bundle, load
from tests.serving import ROOT
from tests.unit.unsaved import BINARY, MODEL, bundle_of


def looped(folder: Path, rows: int) -> str:
    """Run the example, and give what it says."""
    command = [sys.executable, "-W", "error", "-m", "examples.payments.lifecycle", str(folder), f"--rows={rows}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TABSERVE_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def report(folder: Path, version: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"monitor-{version}" / "report.json").read_text())
    return found


def assert_closed(folder: Path, told: str) -> None:
    """Version 1 has alarms in week 3 alone, version 2 took its place and has none, and all pages are there."""
    weeks = re.findall(r"Week (\d), version (\d): .*\n +(\w+)", told)
    first, second = report(folder, 1), report(folder, 2)

    assert weeks == [("1", "1", "Nothing"), ("2", "1", "Nothing"), ("3", "1", "Retrain"), ("4", "2", "Nothing")]
    assert {"amount"} <= {each["what"] for each in first["findings"] if each["alarm"]}
    assert first["digest"] == load(folder / "releases" / "1").digest
    assert second["digest"] == load(folder / "served").digest == load(folder / "releases" / "2").digest
    assert not second["alarm"]
    assert {each["note"] for each in second["findings"] if each["window"] == "release"} == {""}
    links = re.findall(r'href="([^"]+)"', (folder / "index.html").read_text())
    assert len(links) == 4
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.long
def test_the_demo_as_it_is(tmp_path: Path) -> None:
    told = looped(tmp_path / "loop", 1_000)

    assert_closed(tmp_path / "loop", told)
    assert "4 events tabserve.retrain.v1 reached the handler: amount, score, the error, the outcome of `accept`" in told


def event(digest: str, kind: str = "tabserve.retrain.v1") -> bytes:
    return json.dumps({"type": kind, "subject": "amount", "data": {"digest": digest}}).encode()


def test_the_handler_trains_once_for_each_bundle(tmp_path: Path) -> None:
    asked: list[str] = []

    def train(digest: str) -> Bundle:
        asked.append(digest)
        return bundle_of(BINARY, MODEL)

    handler = Handler(train)
    with handler.serving() as url:
        statuses = [status(url, event(digest)) for digest in ("a", "a", "b")]
        statuses.append(status(url, event("c", "another.type")))
        trained = [each.result() for each in handler.trained]

    assert statuses == [202, 202, 202, 400]
    assert (asked, len(trained), len(handler.events)) == (["a", "b"], 2, 3)


def status(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST")) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def test_a_release_takes_the_place_of_another(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "bundle.json").write_text(version)
        put(tmp_path / version, tmp_path / "served")

    assert (tmp_path / "served" / "bundle.json").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "served"]


def test_payments_change_in_the_third_week() -> None:
    before, after = of_days(0, 13, 200), of_days(14, 20, 200)

    assert after.amount.mean() > 1.7 * before.amount.mean()
    assert (after.outcome == "fraud").mean() > 2 * (before.outcome == "fraud").mean()
    assert of_days(0, 1, 5).equals(of_days(0, 1, 5))
