"""The report as one self-contained HTML page."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from tabserve_loadtest.charts import charts
from tabserve_loadtest.document import Document
from tabserve_loadtest.verdict import milliseconds


def render(document: Document) -> str:
    """The page's HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["ms"] = milliseconds
    template = environment.from_string((files("tabserve_loadtest") / "page.html").read_text())
    drawn = [charts(section, f"s{number}") for number, section in enumerate(document.sections)]
    return template.render(document=document, charts=drawn)
