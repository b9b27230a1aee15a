"""The pages of the site: where each comes from, and what its links become.

A link to a page of the site stays a link, and a label that is only the file's name becomes the page's title. An image
is copied. Any other file of the repository is a link only if the repository's address is known, and otherwise text.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OWN = {
    "README.md": "index.md",
    "charts/tabserve/README.md": "chart.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "website/api.md": "api.md",
}
"""Pages that are not in docs/, by their file, and what they are called in the site."""
IMAGES = (".png", ".svg")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:)([^)\s#]*)(#[^)\s]*)?\)")
_ATTRIBUTE = re.compile(r'\b(src|srcset)="(?!https?:)([^"\s]+)"')
_NESTED = re.compile(r"^  (?=- )", re.MULTILINE)
_FENCED = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(.*?)\1")


class BrokenLink(ValueError):
    """A page links to a file that is not there."""


def pages() -> dict[str, str]:
    """The names of the site's pages, by their files in the repository."""
    return {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))} | OWN


@cache
def titles() -> dict[str, str]:
    """The titles of the pages in the navigation, by their names."""
    return dict(entries())


def entries() -> Iterator[tuple[str, str]]:
    """Name and title of each page in the navigation, in order."""
    return _below(tomllib.loads((ROOT / "website" / "zensical.toml").read_text())["project"]["nav"])


def _below(nav: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for entry in nav:
        for title, below in entry.items():
            if isinstance(below, str):
                yield below, title
            else:
                yield from _below(below)


def write(folder: Path, source: str = "") -> None:
    """Write all pages and their images into a folder. source: the repository's address, if known. Raises BrokenLink."""
    for file, name in pages().items():
        text = (ROOT / file).read_text()
        (folder / name).write_text(converted(text, file, source, lambda image: _copied(image, folder)))
    for name in ("extra.css", "icon.svg"):
        shutil.copy(ROOT / "website" / name, folder / name)


def converted(text: str, file: str, source: str, copied: Callable[[str], str]) -> str:
    """A page for the site. file: where it comes from. copied: takes an image's file, gives its place in the site."""
    parts = _FENCED.split(text)
    changed = [part if part.startswith("```") else _prose(part, file, source, copied) for part in parts]
    return "".join(changed)


def _prose(text: str, file: str, source: str, copied: Callable[[str], str]) -> str:
    """Text without code blocks. Python-Markdown wants the items of a list in a list four spaces in."""
    text = _ATTRIBUTE.sub(lambda found: f'{found[1]}="{copied(_place(file, found[2]))}"', text)
    linked = _NESTED.sub("    ", _LINK.sub(lambda found: _link(found, file, source, copied), text))
    return "\n".join(_cells(line) if line.startswith("|") else line for line in linked.split("\n"))


def _link(found: re.Match[str], file: str, source: str, copied: Callable[[str], str]) -> str:
    image, target, anchor = found[1], found[3], found[4] or ""
    if not target:
        return found[0]
    label, place = _LINK.sub(lambda inner: _link(inner, file, source, copied), found[2]), _place(file, target)
    if place in pages():
        name = pages()[place]
        shown = titles()[name] if label in (target, place, posixpath.basename(place)) else label
        return f"[{shown}]({name}{anchor})"
    if image or place.endswith(IMAGES):
        return f"{image}[{label}]({copied(place)})"
    return f"[{label}]({source.rstrip('/')}/{place}{anchor})" if source else label


def _place(file: str, target: str) -> str:
    """The file that a page's link leads to, from the repository's root. Raises BrokenLink."""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
    if not (ROOT / place).exists():
        raise BrokenLink(f"{file}: {target} is not there")
    return f"{place}/README.md" if f"{place}/README.md" in OWN else place


def _copied(image: str, folder: Path) -> str:
    """Copy an image; returns its place in the site."""
    place = f"images/{image.removeprefix('docs/').replace('/', '-')}"
    os.makedirs(folder / "images", exist_ok=True)
    shutil.copy(ROOT / image, folder / place)
    return place


def _cells(line: str) -> str:
    """A row of a table, where GitHub wants a bar in code escaped, and Python-Markdown does not."""
    return _CODE.sub(lambda found: found[0].replace("\\|", "|"), line)
