"""The docs site has each page once, and its tables say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.serving import ROOT
from website import causes, pages


def test_the_navigation_has_each_page_once() -> None:
    assert sorted(name for name, _ in pages.entries()) == sorted(pages.pages().values())


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"`(tabserve[\w.]+\.\w+)`", (ROOT / "docs" / "python.md").read_text().split("\n\n")[2])
    shown = re.findall(r"^::: (\S+)$", (ROOT / "website" / "api.md").read_text(), re.MULTILINE)

    assert len(listed) >= 9
    assert {*listed} <= {*shown}


def test_troubleshooting_has_the_doctors_causes() -> None:
    """`make docs-causes` writes them."""
    page = causes.PAGE.read_text()

    assert causes.written(page) == page
    assert causes.table() in page


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[rollout](rollout.md#the-page)", "[rollout](rollout.md#the-page)"),
        ("[values](../charts/tabserve/README.md#values)", "[values](chart.md#values)"),
        ("[../charts/tabserve](../charts/tabserve)", "[The chart](chart.md)"),
        ("[redis](../examples/redis)", "redis"),
        ("[rollout.md](rollout.md) and [docs](python.md)", "[Rollout](rollout.md) and [docs](python.md)"),
        ("[below](#below)", "[below](#below)"),
        ("[KServe](https://kserve.github.io)", "[KServe](https://kserve.github.io)"),
        ("![all](../benchmarks/results/latency.svg)", "![all](copy of benchmarks/results/latency.svg)"),
        ("[![a](../charts/icon.svg)](rollout.md)", "[![a](copy of charts/icon.svg)](rollout.md)"),
        ('<img src="../charts/icon.svg">', '<img src="copy of charts/icon.svg">'),
        ("- a\n  - b", "- a\n    - b"),
        ("```sh\n[redis](../examples/redis)\n```", "```sh\n[redis](../examples/redis)\n```"),
        ("| `a \\| b` | c |", "| `a | b` | c |"),
    ],
)
def test_links_lead_where_the_site_has_it(link: str, becomes: str) -> None:
    assert pages.converted(link, "docs/any.md", "", lambda image: f"copy of {image}") == becomes


def test_links_to_files_lead_to_the_repository_if_it_is_known() -> None:
    text = pages.converted("[redis](../examples/redis)", "docs/any.md", "https://git.example/main", str)

    assert text == "[redis](https://git.example/main/examples/redis)"


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def test_links_into_pages_lead_to_headings() -> None:
    texts = {file: (ROOT / file).read_text() for file in pages.pages()}
    links = [(file, *link) for file, text in texts.items() for link in re.findall(r"\]\(([^():#]*)#([^)]+)\)", text)]
    places = [(file, (ROOT / file).parent.joinpath(target).resolve() if target else ROOT / file, anchor)
              for file, target, anchor in links]  # fmt: skip
    there = {ROOT / file: anchors(text) for file, text in texts.items()}

    assert len(places) > 50
    assert [f"{file}: {at.name}#{anchor}" for file, at, anchor in places if anchor not in there.get(at, {anchor})] == []


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(pages.BrokenLink, match=r"docs/any\.md: \.\./nowhere is not there"):
        pages.converted("[x](../nowhere)", "docs/any.md", "", str)
