"""Metrics that alerts and panels name, and those that docs/operations.md explains."""

from __future__ import annotations

import re

from tests.serving import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
_NAMES = re.compile(r"\b(?:tabserve|process|kube)_\w+")


def documented() -> set[str]:
    """The metrics in the page's tables."""
    cells = re.findall(r"^\| (`[^|]+`) \| (?:counter|gauge|histogram) \|", PAGE, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def named(expression: str) -> set[str]:
    """The metrics in an expression, histograms without the ending of their series."""
    return {re.sub("_(bucket|count|sum)$", "", name) for name in _NAMES.findall(expression)}
