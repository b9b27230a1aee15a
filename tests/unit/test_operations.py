"""docs/operations.md lists what the services tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tabserve_transformer.predictor_client.outages import LINES
from tests.serving import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()


def events() -> Iterator[str]:
    """The events in all calls of `tell`."""
    for package in ("tabserve/inference", "tabserve/decision_log", "tabserve/stream", "predictor", "transformer"):
        for path in (ROOT / package).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            for call in calls:
                if ast.unparse(call.func).endswith("tell"):
                    found = [getattr(argument, "value", None) for argument in call.args[1:3]]
                    yield from (each for each in found if isinstance(each, str) and each.isidentifier())


def test_every_event_of_the_log_has_a_row_and_every_row_an_event() -> None:
    cells = re.findall(r"^\| (.+?) \| (?:info|warning|error|critical)[a-z, ]* \|", PAGE, re.MULTILINE)
    rows = [event for cell in cells for event in re.findall(r"`(\w+)`", cell)]

    assert {*events(), *LINES, "start_failed"} == {*rows}
    assert len(rows) == len({*rows})


@pytest.mark.parametrize(("whose", "module"), [("gate", "rollout/serving.py"), ("monitor", "monitor/prometheus.py")])
def test_every_metric_of_what_is_no_service_has_a_row_and_every_row_a_metric(whose: str, module: str) -> None:
    table = PAGE.partition(f"\n### Of the {whose}\n")[2].partition("\n#")[0]
    rows = [name for name in re.findall(r"`(\w+)`", table) if name.startswith("tabserve_")]
    shown = re.findall(r'"(tabserve_\w+)"', (ROOT / "tabserve" / module).read_text())

    assert sorted(rows) == sorted(shown)
    assert len(rows) > 5
