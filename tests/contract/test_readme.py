"""The README lists what is tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def stated() -> dict[int, str]:
    """The statements in the tests' docstrings."""
    found: dict[int, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        for match in filter(None, (re.match(r"(\d+)\. (.*)", ast.get_docstring(node) or "") for node in functions)):
            found.setdefault(int(match[1]), []).append(match[2])
    return {number: " ".join(texts) for number, texts in found.items()}


def test_the_readme_lists_every_statement() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \| \[", (HERE / "README.md").read_text(), re.MULTILINE)
    assert {int(number): text for number, text in rows} == stated()
    assert [int(number) for number, _ in rows] == list(range(1, 70))
