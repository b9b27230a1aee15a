"""How CSV files, which have no types, write what a schema's fields hold."""

from __future__ import annotations

DELIMITERS = ",;\t|"
"""The characters that divide the cells of CSV files."""
TRUTHS = {"true": True, "1": True, "false": False, "0": False}
"""Booleans by the text of their cells, in lower case."""
