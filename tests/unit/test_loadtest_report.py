from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as Xml

import msgspec
import pytest

from tabserve_loadtest import document, junit, page, report
from tabserve_loadtest.document import Document
from tabserve_loadtest.measured import Measured, Table
from tabserve_loadtest.objectives import DEFAULT, read
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.result import Result, StockNumbers
from tabserve_loadtest.schedule import Segment
from tabserve_loadtest.verdict import Judgement, Verdict

HOSTILE = '<script src="//evil">&"'


@pytest.fixture(scope="module")
def found() -> Document:
    """A run with everything that a page can show, and with text that is not HTML."""
    recording = Recording()
    for number in range(3000):
        recording.add(number // 300, 1000 + number, 10, "ok" if number % 50 else "refused", "ab"[number % 5 == 0], 1)
    recording.error(HOSTILE)
    measured = Measured(
        load=f"load {HOSTILE}",
        recording=recording,
        figures={"recovery_s": 2.0},
        tables=(Table("Steps", ("rate",), (("10",), ("20",))),),
        offered=(Segment(300, 10),),
        replicas={"predictor": [(0.0, 1), (4.0, 3)]},
    )
    findings = [Judgement(f"p99 {number} ≤ 1", verdict, "x") for number, verdict in enumerate(Verdict)]
    results = [
        Result("spike", measured, findings, stock=[StockNumbers("closed loop", 10, 1, 2, 3, 4.0)]),
        Result("server", measured, findings[3:], trusted=False),
    ]
    return document.document(f"title {HOSTILE}", "tabserve load run", results, read(DEFAULT))


def test_the_page_needs_nothing_but_itself(found: Document) -> None:
    html = page.render(found)

    assert HOSTILE not in html
    assert not re.findall(r"<script|<link|<img|<iframe|@import|url\((?!#)", html)
    assert not [at for at in re.findall(r'(?:src|href)="([^"]*)"', html) if not at.startswith("#")]
    identifiers = re.findall(r'\bid="([^"]*)"', html)
    assert len(identifiers) == len(set(identifiers))
    assert html.index("FAIL") < html.index("<table")


def test_a_release_has_its_short_id(found: Document) -> None:
    whole = "sha256:" + "0123456789abcdef" * 4
    section = found.sections[0]
    releases = [
        msgspec.structs.replace(section.releases[0], name=name) for name in (f"{whole} + {whole}", "5f0c1a2b3c4d5e6f")
    ]
    html = page.render(msgspec.structs.replace(found, sections=[msgspec.structs.replace(section, releases=releases)]))

    assert f'<span title="{whole} + {whole}">0123456789ab + 0123456789ab</span>' in html
    assert ">5f0c1a2b3c4d5e6f</span>" in html
    assert whole not in re.sub(r'title="[^"]*"', "", html)


def test_every_axis_has_its_unit_and_every_colour_is_the_pages(found: Document) -> None:
    html = page.render(found)
    charts = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    titles = [re.findall(r'aria-label="([^",]*)', chart)[0] for chart in charts]

    assert titles == ["Latency distribution", "Latency over time", "Requests over time", "Replicas over time"]
    for chart, x, y in zip(
        charts,
        ["share of requests (%)", *["time since the start (s)"] * 3],
        ["latency (ms)", "latency (ms)", "requests per second", "ready replicas (count)"],
        strict=True,
    ):
        assert f">{x}</text>" in chart
        assert f">{y}</text>" in chart
        assert set(re.findall(r"#[0-9a-f]{6}\b", chart)) == set()


def test_where_the_generator_was_the_limit_no_latency_is_reported(found: Document) -> None:
    starved = found.sections[1]

    assert (starved.quantiles, starved.releases, starved.seconds, starved.curve) == ([], [], [], [])
    assert "No latency is reported" in page.render(found)


def test_machines_read_the_report_again(found: Document, tmp_path: Path) -> None:
    report.write(tmp_path, found)

    assert sorted(file.name for file in tmp_path.iterdir()) == ["junit.xml", "report.html", "report.json"]
    assert document.decode((tmp_path / "report.json").read_bytes()) == found


def test_junit_has_a_case_per_objective(found: Document) -> None:
    suites = Xml.fromstring(junit.encode(found))

    (spike, _) = suites.findall("testsuite")
    assert [child.tag for case in spike for child in case] == ["system-out", "failure", "error", "error"]
    assert [spike.get(name) for name in ("tests", "failures", "errors")] == ["4", "1", "2"]


def test_the_text_begins_with_scenarios_and_ends_with_the_verdict(found: Document) -> None:
    text = report.text(found)

    assert text.startswith("spike: INVALID")
    assert text.endswith("INVALID")
    assert "FAIL p99 1 ≤ 1: x" in text
