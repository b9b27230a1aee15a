"""A run's report: text, one HTML page, JSON for machines and JUnit for CI."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tabserve_loadtest import document, junit
from tabserve_loadtest.document import Document, Section
from tabserve_loadtest.verdict import milliseconds

PAGE, DATA, JUNIT = "report.html", "report.json", "junit.xml"


def text(found: Document) -> str:
    """The verdicts and their grounds, for a terminal."""
    return "\n\n".join([*(_section(section) for section in found.sections), found.verdict.value])


def _section(section: Section) -> str:
    lines = [f"{section.scenario}: {section.verdict.value} ({section.load})"]
    for q in section.quantiles:
        high = milliseconds(q.high) if q.high is not None else "unknown"
        lines.append(f"  p{q.q * 100:g} {milliseconds(q.value)} [{milliseconds(q.low)}, {high}]")
    lines += [f"  {name} {value:.4g}" for name, value in section.figures.items()]
    lines += [f"  {one.name}: p50 {one.p50:g} ms, p99 {one.p99:g} ms (Locust's own numbers)" for one in section.stock]
    lines += [f"  {finding.verdict.value} {finding.objective}: {finding.measured}" for finding in section.findings]
    lines += [f"  {count:,} times {error}" for error, count in list(section.errors.items())[:5]]
    return "\n".join(lines)


def command(arguments: Sequence[str]) -> str:
    """The command line in a form that can be typed again."""
    return shlex.join(["tabserve", "load", *arguments[1:]])


def write(folder: Path, found: Document) -> None:
    """Write report.html, report.json and junit.xml into a new folder."""
    from tabserve_loadtest import page  # loads matplotlib, which takes longer than starting a generator

    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page.render(found))
    (folder / DATA).write_bytes(document.encode(found))
    (folder / JUNIT).write_bytes(junit.encode(found))
