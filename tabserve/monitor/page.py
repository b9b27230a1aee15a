"""The report as one HTML page."""

from __future__ import annotations

from tabserve.monitor.run import Compared, Report
from tabserve.monitor.text import date
from tabserve.monitor.verdict import told
from tabserve.pages import charts
from tabserve.pages.page import render


def page(report: Report) -> str:
    """The page's HTML."""
    drawn = [
        (title(each), charts.compared(f"shares of {each.name}", each.names, each.now, each.reference))
        for each in report.columns
    ]
    deciles = [] if report.performance is None else report.performance.metrics.deciles
    calibrated = charts.calibration([(row[1], row[2]) for row in deciles]) if deciles else ""
    alarmed = [each for each in report.equity if each.differs]
    return render(
        "monitor.html",
        report=report,
        verdict=_plain(report.verdict),
        charts=drawn,
        calibration=calibrated,
        date=date,
        told=lambda finding: _plain(told(finding)),
        different=alarmed,
    )


def title(compared: Compared) -> str:
    """What a plot is of."""
    return compared.name if compared.of == "feature" else f"the {compared.name}"


def _plain(text: str) -> str:
    return text.replace("`", "")
