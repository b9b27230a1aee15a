"""`python -m benchmarks.scoring`: what `Scorer.score` costs beside XGBoost alone, by CPU time, into results/scoring.

Seven turns in alternation in one process, one thread each, on the benchmark's own rows of payments and of 30 numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import msgspec
import numpy as np
import pyarrow as pa
import xgboost

from benchmarks import models, report
from tabserve import bundle as bundles
from tabserve.bundle import libraries
from tabserve.bundle.manifest import EngineName
from tabserve.scoring import Scorer

TURNS = 7
RESULTS = Path(__file__).parent / "results" / "scoring"
NOW = 1_800_000_000.0
EXPLAINED = 0.03
"""The part of the rows that get reasons in the third comparison."""
LIBRARIES = ("tabserve", "xgboost-cpu", "scikit-learn-intelex", "pyarrow", "numpy")
TARGETS = {"onedal": 1.3}
"""The least rows per second by the bare model's, for engines that have one of their own."""


class Compared(msgspec.Struct, frozen=True):
    """A figure, its target, and what was got in each turn; at_most: whether less is better."""

    what: str
    target: float
    got: list[float]
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """`met`, also within a tenth of the target, or `missed`."""
        middle = median(self.got)
        return "met" if (middle <= 1.1 * self.target if self.at_most else middle >= 0.9 * self.target) else "missed"


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(1000), default=models.POOL_ROWS, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(rows: int, output: Path) -> None:
    """Measure, write table.md and summary.json, and print the table."""
    found = [*_plain("payments", rows), *_plain("xgboost", rows), *_plain("xgboost", rows, together=True)]
    if libraries.installed("scikit-learn-intelex"):
        found += _plain("xgboost", rows, engine="onedal")[:1]  # beside XGBoost, checks would take less than nothing
    found.append(_explained(rows))
    output.mkdir(parents=True, exist_ok=True)
    about = _about(rows)
    content = {"about": about, "figures": found}
    (output / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    (output / "table.md").write_text(_page(about, found))
    click.echo(_page(about, found))


def _plain(model: str, rows: int, *, together: bool = False, engine: EngineName | None = None) -> list[Compared]:
    """The bare model's time by the scorer's, and what the scorer adds to a row."""
    folder = models.bundle(model, engine=engine)
    scorer, batch = Scorer(folder, now=NOW, together=together), _batch(model, rows)
    booster, features = _bare(folder), scorer.features(batch)
    bare, whole = _alternately(
        lambda: booster.inplace_predict(features, validate_features=False), lambda: scorer.score(batch)
    )
    used = scorer.score(batch.slice(0, 100)).decided.column("engine")[0].as_py()
    name = f"{model}, {booster.num_boosted_rounds()} trees, by {used}"
    return [
        Compared(
            f"{name}: rows per second of `score` ÷ the bare model's", TARGETS.get(used, 0.85), _ratios(bare, whole)
        ),
        Compared(
            f"{name}: checks and decision, µs a row",
            1.5,
            [(one - other) / rows * 1e6 for one, other in zip(whole, bare, strict=True)],
            at_most=True,
        ),
    ]


def _explained(rows: int) -> Compared:
    """Reasons for few rows, by none: the time with the rows of the upper bands thinned to that part."""
    plain, some = Scorer(models.bundle("payments"), now=NOW), Scorer(models.bundle("payments", "some"), now=NOW)
    batch = _batch("payments", rows)
    batch = batch.take(_mixed(plain, batch))
    without, with_reasons = _alternately(lambda: plain.score(batch), lambda: some.score(batch))
    what = f"payments: reasons for {EXPLAINED:.0%} of the rows ÷ for none"
    return Compared(what, 6.0, _ratios(with_reasons, without), at_most=True)


def _mixed(scorer: Scorer, batch: pa.RecordBatch) -> pa.Array:
    """The places of rows of which that part is in the upper bands."""
    decisions = np.array(scorer.score(batch).decided.column("decision").to_pylist())
    accepted = np.flatnonzero(decisions == models.bands("payments")[-1][1])
    others = np.flatnonzero(decisions != models.bands("payments")[-1][1])
    few = others[: round(len(accepted) * EXPLAINED / (1 - EXPLAINED))]
    return pa.array(np.sort(np.concatenate([accepted, few])))


def _alternately(*calls: Callable[[], Any]) -> tuple[list[float], ...]:
    """CPU seconds of each call in each turn, after one that does not count; every other turn is in reverse."""
    times: tuple[list[float], ...] = tuple([] for _ in calls)
    for call in calls:
        call()
    for turn in range(TURNS):
        order = list(enumerate(calls))
        for at, call in order if turn % 2 else reversed(order):
            started = time.process_time()
            call()
            times[at].append(time.process_time() - started)
    return times


def _ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(numerators, denominators, strict=True)]


def _batch(model: str, rows: int) -> pa.RecordBatch:
    frame = models.trained(model).rows.iloc[:rows]
    batch: pa.RecordBatch = pa.RecordBatch.from_pandas(frame, preserve_index=False)
    if model == "payments":  # a table has times, not their text
        for name in ("opened", "paid"):
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, name, batch.column(at).cast(pa.timestamp("us")))
    return batch


def _bare(folder: Path) -> Any:
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(folder / bundles.load(folder).manifest.model.file)
    return booster


def _about(rows: int) -> dict[str, str]:
    return {**report.about(f"python -m benchmarks.scoring --rows {rows}"), "libraries": report.versions(LIBRARIES)}


def _page(about: dict[str, str], found: Sequence[Compared]) -> str:
    head = ("what", "target", "got", "lowest to highest", "verdict")
    return f"# Scoring in process\n\n{report.facts(about)}\n\n{report.table(head, map(_row, found))}\n"


def _row(figure: Compared) -> Sequence[str]:
    bound = f"{'≤' if figure.at_most else '≥'} {figure.target:g}"
    spread = f"{min(figure.got):.3g} to {max(figure.got):.3g}"
    return figure.what, bound, f"{median(figure.got):.3g}", spread, figure.verdict


if __name__ == "__main__":
    main()
