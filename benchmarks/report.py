"""Write table.md (targets with verdicts, and every cell), summary.json (targets) and results.json (everything)."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks.load import DISTURBED, MOST_TRIES
from benchmarks.results import Cell, Results, per_second
from benchmarks.targets import TARGETS, Goal
from tabserve.bundle.libraries import installed

SERVED = "server on core 0, generator on core 1"


def write(results: Results, folder: Path) -> None:
    """Write results.json, which is not kept in the repository, summary.json and table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("results", _rounded(results)), ("summary", summary(results))):
        (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    (folder / "table.md").write_text(page(results))


def summary(results: Results) -> dict[str, Any]:
    """What was run, and the figure and verdict of each target that was measured."""
    measured = {each.title: each.value(results) for each in TARGETS}
    targets = {
        each.title: {"target": each.target, "got": float(f"{got:.3g}"), "verdict": each.verdict(got)}
        for each in TARGETS
        if (got := measured[each.title]) is not None
    }
    return {"about": results.about, "targets": targets}


def page(results: Results) -> str:
    """The whole of table.md."""
    parts = ["# tabserve compared with other servers", facts(results.about), "## Targets", _targets(results)]
    parts += ["## Measured", _EXPLANATION, _cells(results), "## Starts", _starts(results)]
    if results.bare:
        parts += ["## Engines by themselves", _bare(results)]
    if results.failures:
        parts += ["## Failed", _failures(results)]
    return "\n\n".join(parts) + "\n"


_EXPLANATION = (
    "Figures are medians over the rounds, each with a fresh start, and their turns; ± is half the distance between the "
    "lowest and the highest. CPU is the server's, for one request. Every answer was compared with the library's own "
    f"prediction. A * marks a cell during which other processes used more than {DISTURBED:.0%} of a core."
)


def facts(about: Mapping[str, str]) -> str:
    """What was run, and where, as a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in about.items())


def about(command: str, where: str = "") -> dict[str, str]:
    """What was run, when, and on which machine. where: which of its cores did what."""
    parts = [processor(), *([where] if where else []), platform.platform()]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "command": command,
        "machine": ", ".join(parts),
        "python": platform.python_version(),
    }


def versions(libraries: Sequence[str]) -> str:
    """The libraries that are installed, with their versions."""
    return ", ".join(f"{each} {found}" for each in libraries if (found := installed(each)))


def processor() -> str:
    """The machine's cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.machine()


def _targets(results: Results) -> str:
    head = ("what", "target", "stretch", "got", "by CPU time", "verdict")
    missing = [each.title for each in TARGETS if each.value(results) is None]
    rows = table(head, (_target(each, results) for each in TARGETS if each.title not in missing))
    found = [measured.disturbed for cell in results.cells() for measured in results.measured(cell)]
    disturbed = (
        f"Other processes disturbed {sum(found)} of {len(found)} measurements, in a closed loop all {MOST_TRIES} times."
    )
    return f"{rows}\n\n{disturbed} Not measured in this run: {'; '.join(missing) or 'nothing'}."


def _target(target: Goal, results: Results) -> Sequence[str]:
    got = target.value(results)
    by_cpu = target.by_cpu(results) if target.by_cpu else None
    sign = "≤" if target.at_most else "≥"
    bounds = ["" if bound is None else f"{sign} {bound:.3g}" for bound in (target.target, target.stretch)]
    figures = ["" if figure is None else f"{figure:.3g}" for figure in (got, by_cpu)]
    return [target.title, *bounds, *figures, target.verdict(got)]


def _cells(results: Results) -> str:
    head = (
        "server",
        "model",
        "rows",
        "encoding",
        "connections",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "CPU µs",
        "refused/s",
        "unsent/s",
    )
    return table(head, (_cell(cell, results) for cell in results.cells()))


def _cell(cell: Cell, results: Results) -> Sequence[str]:
    all_of = results.measured(cell)
    disturbed = "*" if any(measured.disturbed for measured in all_of) else ""
    loop = f" at {cell.load:g} times capacity" if cell.load else ""
    return [
        cell.peer,
        cell.model,
        str(cell.rows),
        cell.encoding,
        f"{cell.connections}{loop}",
        spread([per_second(measured) for measured in all_of], "{:,.0f}") + disturbed,
        spread([measured.p50 * 1e3 for measured in all_of], "{:.3f}"),
        spread([measured.p99 * 1e3 for measured in all_of], "{:.2f}"),
        spread([measured.server_seconds * 1e6 for measured in all_of], "{:.0f}"),
        f"{median(measured.refused / measured.seconds for measured in all_of):,.0f}" if cell.load else "",
        f"{median(measured.unsent / measured.seconds for measured in all_of):,.0f}" if cell.load else "",
    ]


def _starts(results: Results) -> str:
    rows = []
    for peer, model in dict.fromkeys((start.peer, start.model) for start in results.starts):
        of = [start for start in results.starts if (start.peer, start.model) == (peer, model)]
        seconds = spread([start.seconds for start in of], "{:.2f}")
        memory = spread([start.resident / 2**20 for start in of], "{:.0f}")
        rows.append((peer, model, seconds, memory, f"{max(start.difference for start in of):.1g}"))
    return table(("server", "model", "first answer after s", "RSS MiB", "largest difference of an answer"), rows)


def _bare(results: Results) -> str:
    sizes = sorted({bare.rows for bare in results.bare})
    found = {(bare.model, bare.engine, bare.rows): bare.seconds for bare in results.bare}
    kinds = dict.fromkeys((bare.model, bare.engine) for bare in results.bare)
    lines = [(*kind, *(f"{found[(*kind, size)] * 1e6:,.1f}" for size in sizes)) for kind in kinds]
    return table(("model", "engine", *(f"{size} rows, µs" for size in sizes)), lines)


def _failures(results: Results) -> str:
    lines = [(each.peer, each.model, str(each.round + 1), each.error.replace("|", "\\|")) for each in results.failures]
    return table(("server", "model", "round", "error"), lines)


def spread(values: Sequence[float], form: str) -> str:
    """The median, and half the distance between the extremes if there are several."""
    middle = form.format(median(values))
    return middle if len(values) < 2 else f"{middle} ± {form.format((max(values) - min(values)) / 2)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rounded(results: Results) -> object:
    """The results with seconds rounded to a tenth of a microsecond; more digits are noise."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return round(value, 7)
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        return [rounded(each) for each in value] if isinstance(value, list) else value

    return rounded(msgspec.to_builtins(results))
