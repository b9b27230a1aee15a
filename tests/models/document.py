"""`docs/models.md`, written from the walk's table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from tests.models.outcomes import summary
from tests.models.walk import Outcome
from tests.serving import ROOT

PAGE = ROOT / "docs" / "models.md"

_HEAD = """\
# Which models are served, and how

A test trains every model below on a small table and saves it. It sends the records as JSON through both services and
compares every answer with the library's own answer on the user's table. This page is written from the result (`make
models`): {summary}.

*Outputs* can be asked for by name; where there are classes there are `label` and `decision` as well. *Reasons* says
whether the model gives contributions, which `outputs.reasons` needs. *ONNX* says that there is a converted form with
the same answers; `save` times it, and it serves where it is faster. The model's own library answers everything else.

"""
_REFUSED = """\
## What is refused

`save` says why, and what to do about it.

| models | `save` says |
|---|---|
"""


def page(outcomes: Iterable[Outcome]) -> str:
    """The page's text."""
    known = list(outcomes)
    parts = [_HEAD.format(summary=summary(known))]
    for group, members in groupby(known, _group):
        right = [one for one in members if one.verdict == "right"]
        if right:
            parts.append(f"## {group[:1].upper()}{group[1:]}\n\n{_served(right)}\n")
    refused = [one for one in known if one.verdict == "refused"]
    return "".join([*parts, _REFUSED, *_sentences(refused)])


def _group(one: Outcome) -> str:
    return one.key.partition(": ")[0]


def _name(one: Outcome) -> str:
    return one.key.partition(": ")[2]


def _served(right: list[Outcome]) -> str:
    """A row for each group of models that are served alike."""
    rows: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    for one in right:
        rows.setdefault((one.outputs, one.converted), []).append(_name(one))
    lines = [_row(names, outputs, onnx) for (outputs, onnx), names in sorted(rows.items(), key=_most)]
    return "| models | outputs | reasons | ONNX |\n|---|---|---|---|\n" + "".join(lines)


def _most(row: tuple[tuple[tuple[str, ...], bool], list[str]]) -> tuple[int, str]:
    return (-len(row[1]), row[1][0])


def _row(names: list[str], outputs: tuple[str, ...], onnx: bool) -> str:
    told = ", ".join(f"`{name}`" for name in outputs if name != "contributions")
    reasons = "yes" if "contributions" in outputs else ""
    return f"| {_listed(names)} | {told} | {reasons} | {'yes' if onnx else ''} |\n"


def _listed(names: list[str]) -> str:
    """The names as text; pipelines are grouped by their last step, with the encoders before it."""
    steps: dict[str, list[str]] = {}
    for name in names:
        first, _, last = name.rpartition(", ")
        steps.setdefault(last, []).append(first)
    return ", ".join(f"{last} after {'; '.join(firsts)}" if firsts[0] else last for last, firsts in steps.items())


def _sentences(refused: list[Outcome]) -> list[str]:
    by_sentence: dict[str, list[str]] = {}
    for one in refused:
        by_sentence.setdefault(one.detail, []).append(f"{_name(one)} ({_group(one)})")
    return [
        f"| {', '.join(names)} | {sentence.replace('|', chr(92) + '|')} |\n" for sentence, names in by_sentence.items()
    ]
