"""The walk's table, one line per case: `tests/models/outcomes.txt`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.models.roster import cases
from tests.models.walk import Outcome, walk

TABLE = Path(__file__).with_name("outcomes.txt")
SEVERITY = ("right", "unfit", "refused", "raised", "wrong")
_WORKERS = 2


def walk_all(of: str = "") -> list[Outcome]:
    """Walk every case whose key holds this text, in separate processes."""
    chosen = [at for at, case in enumerate(cases()) if of in case.key]
    with ProcessPoolExecutor(_WORKERS, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        return list(pool.map(_walked, chosen))


def read() -> dict[str, Outcome]:
    """The committed table, by key."""
    return {one.key: one for one in map(_parsed, TABLE.read_text().splitlines())}


def written(outcomes: Iterable[Outcome]) -> str:
    """The table's text."""
    return "".join(f"{_line(one)}\n" for one in outcomes)


def worse(outcomes: Iterable[Outcome], known: dict[str, Outcome]) -> list[Outcome]:
    """The cases that were better in the known table; one that is not in it must be right."""
    unknown = Outcome("", "right")
    return [
        one for one in outcomes if SEVERITY.index(one.verdict) > SEVERITY.index(known.get(one.key, unknown).verdict)
    ]


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many cases are right, refused, wrong, raised and unfit, and which share of those that fit is right."""
    count = Counter(one.verdict for one in outcomes)
    share = 100 * count["right"] / max(1, len(outcomes) - count["unfit"])
    counts = ", ".join(f"{count[verdict]} {verdict}" for verdict in ("right", "refused", "wrong", "raised", "unfit"))
    return f"{counts}; of those that fit, {share:.1f} % are right"


def _one_thread() -> None:
    import os

    os.environ["OMP_NUM_THREADS"] = "1"


def _walked(index: int) -> Outcome:
    return walk(cases()[index])


def _line(one: Outcome) -> str:
    forms = (*one.outputs, *(["onnx"] if one.converted else []))
    return " | ".join((one.key, one.verdict, " ".join(forms) or "-", one.detail)).removesuffix(" | ")


def _parsed(line: str) -> Outcome:
    key, verdict, forms, *detail = line.split(" | ", 3)
    outputs = [form for form in forms.split() if form not in ("-", "onnx")]
    return Outcome(key, verdict, tuple(outputs), "onnx" in forms.split(), "".join(detail))
