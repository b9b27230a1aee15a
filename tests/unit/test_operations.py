"""docs/operations.md lists what the services tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.serving import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()


def events() -> Iterator[str]:
    """The events in all calls of `tell`."""
    for package in ("tabserve/inference", "tabserve/decision_log", "predictor", "transformer"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("tell") and len(node.args) >= 4:
                    found = (getattr(each, "value", None) for each in ast.walk(node.args[2]))
                    yield from (each for each in found if isinstance(each, str))


def test_every_event_of_the_log_has_a_row_and_every_row_an_event() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:info|warning|error|critical) \|", PAGE, re.MULTILINE)

    assert {*events(), "start_failed"} == {*rows}
    assert len(rows) == len({*rows})
