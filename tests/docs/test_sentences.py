"""No sentence has more than 30 words, in pages, docstrings and comments."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import ROOT

MOST = 30
FOLDERS = (
    "benchmarks",
    "charts",
    "docs",
    "examples",
    "loadtest",
    "predictor",
    "release",
    "tabserve",
    "tests",
    "transformer",
    "website",
)
GENERATED = re.compile(r"_pb2\.py$|/results/|docs/models\.md$")
_ENDS = re.compile(r"(?<=[.?!])\s+|\s(?=[a-z_]+(?:, [a-z_]+)*: )|\n\s*(?:[-*|#]|\n)|\|")


def sources(ending: str) -> list[Path]:
    """The project's files with this ending, except generated ones."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob(f"*{ending}")]
    return sorted(path for path in [*ROOT.glob(f"*{ending}"), *found] if not GENERATED.search(path.as_posix()))


def prose(path: Path) -> Iterator[str]:
    """The texts for people in a file: a page without its code blocks, or docstrings and comments."""
    if path.suffix == ".md":
        yield re.sub(r"^```.*?^```", "\n\n", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    with path.open("rb") as file:
        yield from (token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)


@pytest.mark.parametrize("ending", [".md", ".py"])
def test_no_sentence_is_long(ending: str) -> None:
    paths = sources(ending)
    texts = [(path, re.sub(r"`[^`]*`|\]\([^)]*\)", "x", text)) for path in paths for text in prose(path)]
    sentences = [(path, " ".join(sentence.split())) for path, text in texts for sentence in _ENDS.split(text)]

    assert len(paths) > 10
    assert [f"{path}: {text}" for path, text in sentences if len(re.findall(r"\w[\w'.,/-]*", text)) > MOST] == []
