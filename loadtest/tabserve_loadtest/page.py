"""The report as one self-contained HTML page."""

from __future__ import annotations

from tabserve.pages.digests import short
from tabserve.pages.page import render as rendered
from tabserve_loadtest.charts import charts
from tabserve_loadtest.document import Document
from tabserve_loadtest.verdict import milliseconds


def render(document: Document) -> str:
    """The page's HTML."""
    drawn = [charts(section, f"s{number}") for number, section in enumerate(document.sections)]
    return rendered("load.html", document=document, charts=drawn, ms=milliseconds, short=short)
