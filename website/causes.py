"""Write the table of docs/troubleshooting.md from the doctor's causes (`make docs-causes`)."""

from __future__ import annotations

import re
from pathlib import Path

from tabserve.doctor.causes import CAUSES

PAGE = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
NAMES = {"release": "RELEASE", "namespace": "NAMESPACE", "slot": "SLOT", "service": "NAME-SLOT"}
_PART = re.compile(r"(?<=<!-- causes: written by `make docs-causes` -->\n).*?(?=<!-- /causes -->)", re.DOTALL)
_PAGE = re.compile(r"\bdocs/(\w[\w-]*\.md)")


def table() -> str:
    """The causes as a table of Markdown."""
    rows = ["| cause | `--json` | what to do |", "|---|---|---|"]
    for cause in CAUSES:
        remedy = _PAGE.sub(r"[\1](\1)", cause.remedy.format_map(NAMES)).replace("|", "\\|")
        rows.append(f"| {cause.title} | `{cause.name}` | {remedy} |")
    return "\n".join(rows) + "\n"


def written(page: str) -> str:
    """The page with the table in its place."""
    return _PART.sub(lambda _: table(), page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
