"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned text, under the names of the first row's keys."""
    names = list(rows[0]) if rows else []
    lines = [dict(zip(names, names, strict=True)), *map(cells, rows)]
    return "\n".join(aligned(lines, widths(lines)))


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The values as text, by name."""
    return {name: _cell(value) for name, value in row.items()}


def widths(lines: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """The widths of the columns that the first row names."""
    return {name: max(len(row.get(name, "")) for row in lines) for name in lines[0]}


def aligned(lines: Sequence[Mapping[str, str]], widths: Mapping[str, int]) -> Iterator[str]:
    """The lines of a table, from cells by name. widths: of the columns to show."""
    for row in lines:
        yield "  ".join(f"{row.get(name, ''):{width}}" for name, width in widths.items()).rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "; ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
