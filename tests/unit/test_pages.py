"""Pages can be read in light, in dark and on paper."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = (files("tabserve.pages") / "page.css").read_text()
DARK = "@media screen and (prefers-color-scheme: dark) {"
TEXTS = ("ink", "quiet", "first", "second", "third", "bad", "good", "doubt")
LEAST_CONTRAST = 4.5
"""Between text and its background, by WCAG 2's level AA."""


def palette(dark: bool) -> dict[str, str]:
    """The colours of a scheme, by name."""
    before, _, after = STYLE.partition(DARK)
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", after if dark else before))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_on_paper_and_panel(dark: bool) -> None:
    colours = palette(dark)
    grounds = [colours["paper"], colours["panel"]]

    ratios = {(text, ground): contrast(colours[text], ground) for text in TEXTS for ground in grounds}
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < LEAST_CONTRAST} == {}


def test_both_schemes_have_the_same_colours_and_paper_is_light() -> None:
    assert palette(False).keys() == palette(True).keys()
    assert "prefers-color-scheme" not in STYLE.replace(DARK, "")
