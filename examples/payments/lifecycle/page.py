"""The page of a run: what became of each week, with a plot by day, and links to the reports and cards."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pandas as pd

_WIDTH, _HEIGHT, _LEFT, _FOOT = 520, 220, 36, 36
_COLOURS = ("first", "second", "third")


class Week(NamedTuple):
    """What became of a week. payments: with `day`, `decision` and `outcome`."""

    number: int
    version: str
    payments: pd.DataFrame
    alarm: bool
    verdict: str

    @property
    def told(self) -> str:
        """The week in words."""
        blocked = (self.payments.decision == "block").mean()
        return f"{len(self.payments):,} payments, {blocked:.1%} blocked, {self.missed.mean():.1%} accepted fraud."

    @property
    def missed(self) -> pd.Series[float]:
        """The part of each day's payments that was accepted, and was fraud."""
        missed = (self.payments.decision == "accept") & (self.payments.outcome == "fraud")
        return missed.astype(float).groupby(self.payments.day).mean()


def write(folder: Path, weeks: list[Week]) -> Path:
    """Write `index.html` into the folder of a run."""
    rows = "".join(
        f"<tr><td>{week.number}</td><td>{week.version}</td><td>{escape(week.told)}</td>"
        f'<td class="{"FAIL" if week.alarm else "PASS"}">{escape(week.verdict.replace("`", ""))}</td></tr>'
        for week in weeks
    )
    versions = list(dict.fromkeys(week.version for week in weeks))
    links = "".join(
        f'<li>version {version}: <a href="monitor-{version}/report.html">what the monitor found</a>, '
        f'<a href="card-{version}.html">its card</a></li>'
        for version in versions
    )
    path = folder / "index.html"
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Four weeks of payments</title>'
        f"<style>{(files('tabserve.pages') / 'page.css').read_text()} a {{ color: inherit; }}</style></head><body>"
        f"<h1>Four weeks of payments, and two versions of a model</h1>"
        f"<p>Payments change on the first day of week 3: amounts are twice as large, and the web is riskier.</p>"
        f"<h2>Fraud that was accepted, by day</h2>{_plot(weeks, versions)}"
        f'<h2>Week by week</h2><div class="scroll"><table><tr><th>week</th><th>version</th><th>payments</th>'
        f"<th>the monitor says</th></tr>{rows}</table></div><h2>Look closer</h2><ul>{links}</ul></body></html>\n"
    )
    return path


def _plot(weeks: list[Week], versions: list[str]) -> str:
    """A bar for each day, in the colour of the version that decided."""
    days = [(week, int(day), float(share)) for week in weeks for day, share in week.missed.items()]  # type: ignore[call-overload]
    highest = max(share for _, _, share in days) or 1.0
    step, base = (_WIDTH - _LEFT) / len(days), _HEIGHT - _FOOT
    drawn = [
        f'<text x="0" y="12" fill="var(--quiet)" font-size="12">{highest:.1%}</text>'
        f'<text x="0" y="{base}" fill="var(--quiet)" font-size="12">0</text>'
    ]
    for at, (week, day, share) in enumerate(days):
        height, colour = base * share / highest, _COLOURS[versions.index(week.version) % len(_COLOURS)]
        drawn.append(
            f"<g><title>day {day + 1}, version {week.version}: {share:.2%}</title>"
            f'<rect x="{_LEFT + at * step + 1:.1f}" y="{base - height:.1f}" width="{step - 2:.1f}" '
            f'height="{height:.1f}" fill="var(--{colour})"/></g>'
        )
    span = (_WIDTH - _LEFT) / len(weeks)
    for at, week in enumerate(weeks):
        x, mark = _LEFT + at * span, " · alarm" if week.alarm else ""
        lines = (f"week {week.number}", f"version {week.version}{mark}")
        drawn += [
            f'<text x="{x + span / 2:.1f}" y="{base + 14 + 14 * line}" text-anchor="middle" fill="var(--quiet)" '
            f'font-size="12">{text}</text>'
            for line, text in enumerate(lines)
        ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="accepted fraud by day" '
        f'style="width: 100%; max-width: 52rem; height: auto">{"".join(drawn)}</svg>'
    )
