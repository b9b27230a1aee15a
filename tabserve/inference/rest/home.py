"""What a browser gets at `/`: a page to try the model, and the figures that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import orjson

from tabserve.inference.metrics import Metrics
from tabserve.inference.rest.pages import JSON, Page, Pages

FIGURES = b"/page/figures"
_LINES = (
    "content-type: text/html; charset=utf-8\r\n"
    "content-security-policy: {policy}\r\n"
    "x-content-type-options: nosniff\r\n"
    "referrer-policy: no-referrer\r\n"
    "cache-control: no-cache\r\n"
    "vary: accept\r\n"
)
_FRESH = JSON + b"cache-control: no-store\r\n"
_WEIGHT = re.compile(rb"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*")


class Home(NamedTuple):
    """A page for browsers. policy: the Content-Security-Policy that it is sent with."""

    html: str
    policy: str


def browser_pages(home: Home) -> Pages:
    """The pages for who asks for HTML; each is made once."""
    made = Page(200, _LINES.format(policy=home.policy).encode(), home.html.encode())
    return {b"/": lambda: made}


def figures_pages(metrics: Metrics) -> Pages:
    """The page of what the service has answered since its start, as JSON."""
    return {FIGURES: _figures(metrics)}


def _figures(metrics: Metrics) -> Callable[[], Page]:
    def make() -> Page:
        return Page(200, _FRESH, orjson.dumps(metrics.figures()))

    return make


def wants_html(accept: bytes) -> bool:
    """Whether an Accept header (RFC 9110, section 12.5.1) names HTML, and does not prefer JSON."""
    weights = {}
    for part in accept.lower().split(b","):
        kind, *parameters = part.split(b";")
        found = [match for match in map(_WEIGHT.fullmatch, parameters) if match]
        weights[kind.strip()] = float(found[0][1]) if found else 1.0
    html = weights.get(b"text/html", 0.0)
    return html > 0 and html >= weights.get(b"application/json", 0.0)
