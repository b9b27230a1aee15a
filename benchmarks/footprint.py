"""`python -m benchmarks.footprint`: memory and CPU of both services, by model, into results/footprint.

Each chain is asked for every record of its pool one by one, then over 32 connections as fast as it answers, and at half
of that. CPU is of the last, because pods with a target of 80 % are as busy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import msgspec

from benchmarks import environments, load, models, report, roster, servers
from benchmarks.footprints import RESULTS, Footprint, Footprints, Process
from benchmarks.load import Load
from benchmarks.payloads import Payloads, payloads
from benchmarks.servers import Server
from benchmarks.turns import CONNECTIONS

LIBRARIES = ("tabserve", "onnxruntime", "xgboost-cpu", "scikit-learn", "numpy")


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(1), default=5.0, show_default=True, help="Of each load.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(seconds: float, output: Path) -> None:
    """Measure, write table.md and summary.json, and print the table."""
    environments.generator()
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder:
        asked = [payloads(models.trained(name), 1, "records") for name in models.MODELS]
        found = [_footprint(each, Path(folder), seconds) for each in asked]
    about = report.about(f"python -m benchmarks.footprint --seconds {seconds:g}", report.SERVED)
    content = Footprints({**about, "libraries": report.versions(LIBRARIES)}, found)
    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    (output / "table.md").write_text(_page(content))
    click.echo(_page(content))


def _footprint(asked: Payloads, folder: Path, seconds: float) -> Footprint:
    name, answers = asked.model.name, folder / f"{asked.model.name}-answers"
    with servers.running(roster.DECISIONS, asked, folder / "none", folder / f"{name}.log") as server:
        first = _resident(server)
        load.collect(server, roster.DECISIONS, asked, answers)
        capacity = load.measure(server, asked, answers, Load(CONNECTIONS, seconds)).per_second
        before = _cpu(server)
        half = load.measure(server, asked, answers, Load(CONNECTIONS, seconds, capacity / 2))
        used = [now - then for now, then in zip(_cpu(server), before, strict=True)]
        cpu = [1e6 * half.server_seconds * each / sum(used) for each in used]
        transformer, predictor = map(Process, first, _resident(server), cpu)
    size = sum(path.stat().st_size for path in models.bundle(name).rglob("*") if path.is_file())
    return Footprint(name, size / 2**20, capacity, transformer, predictor)


def _resident(server: Server) -> list[float]:
    return [process.memory_info().rss / 2**20 for process in server.processes]


def _cpu(server: Server) -> list[float]:
    times = [process.cpu_times() for process in server.processes]
    return [each.user + each.system for each in times]


def _page(found: Footprints) -> str:
    parts = [
        f"{name}: {what}" for name in ("transformer", "predictor") for what in ("MiB at first", "under load", "µs")
    ]
    table = report.table(("model", "bundle, MiB", "decisions/s", *parts), map(_row, found.models))
    return f"# Memory and CPU of each process\n\n{report.facts(found.about)}\n\n{table}\n"


def _row(found: Footprint) -> tuple[str, ...]:
    sizes = [size for each in (found.transformer, found.predictor) for size in (each.first, each.loaded, each.cpu)]
    return (found.model, f"{found.bundle:.1f}", f"{found.per_second:,.0f}", *(f"{size:.0f}" for size in sizes))


if __name__ == "__main__":
    main()
