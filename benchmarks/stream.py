"""`python -m benchmarks.stream`: `tabserve stream` on a real broker, beside `tabserve score`, into results/stream.

The broker (one node, from tests/data/kafka.py), the stream and whoever sends share the machine. Streams and `score`
decide the same records in alternation; then records come at half the rate that exactly-once has reached.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
import msgspec
import psutil
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import models, report, score_cpu
from benchmarks.scoring import Compared
from tests.data.kafka import Broker, broker
from tests.serving import ROOT, Service, free_port

RESULTS = Path(__file__).parent / "results" / "stream"
LIBRARIES = ("tabserve", "confluent-kafka", "xgboost-cpu", "pyarrow", "numpy")
TOPICS = ("in", "out", "dead")
ENDINGS = {"score on JSON lines": "jsonl", "score on Parquet": "parquet"}
DELIVERIES = ("exactly-once", "at-least-once")
WHAT = (*DELIVERIES, *ENDINGS)
"""What each turn measures."""
PARTITIONS = 4
PACE_SECONDS = 0.005
WARM_UP_SECONDS = 30.0
"""How long records come before they count; the broker's Java compiles its code meanwhile."""
MOST_SECONDS = 0.05
"""What a record may take from its time to its commit, at half load."""
MOST_LATE = 0.01
"""The share of records that may take longer; where it is more, the p99 is longer."""
PACED_TURNS = 3
POLL_SECONDS = 0.1


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(10_000), default=200_000, show_default=True, help="In each turn.")
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(5), default=30.0, show_default=True, help="In each turn at half load.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(rows: int, turns: int, seconds: float, output: Path) -> None:
    """Measure, write table.md and summary.json, and print the table."""
    frame = models.trained("payments").rows
    records = [record.encode() for record in frame.to_json(orient="records", lines=True).splitlines()]
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder, broker(Path(folder) / "kafka") as kafka:
        measuring = _Measuring(kafka, Path(folder), records, rows)
        taken = [measuring.turn(in_order) for in_order in _orders(turns)]
        rate = median(turn["exactly-once"].rate for turn in taken) / 2
        late = [measuring.paced(rate, seconds) for _ in range(PACED_TURNS)]
    exactly, at_least, lines, columns = ([turn[what] for turn in taken] for what in WHAT)
    found = [
        Compared(
            f"rows per second of CPU: exactly-once ÷ `tabserve score` on {form}",
            0.5,
            [one.per_core / other.per_core for one, other in zip(exactly, scored, strict=True)],
        )
        for form, scored in (("JSON lines", lines), ("Parquet", columns))
    ]
    found += [
        Compared(
            "rows per second: exactly-once ÷ at-least-once",
            0.8,
            [one.rate / other.rate for one, other in zip(exactly, at_least, strict=True)],
        ),
        Compared(
            f"at {rate:,.0f} rows per second: share committed after more than {MOST_SECONDS * 1000:g} ms",
            MOST_LATE,
            late,
            at_most=True,
        ),
    ]
    figures = {
        **{f"rows per second of CPU, {what}": [turn[what].per_core for turn in taken] for what in WHAT},
        **{f"rows per second, {what}": [turn[what].rate for turn in taken] for what in DELIVERIES},
    }
    about = {
        **report.about(f"python -m benchmarks.stream --rows {rows} --turns {turns} --seconds {seconds:g}"),
        "libraries": report.versions(LIBRARIES),
    }
    _write(output, about, found, figures)


def _orders(turns: int) -> list[tuple[str, ...]]:
    """What each turn measures, there and back in alternation."""
    return [WHAT if turn % 2 else WHAT[::-1] for turn in range(turns)]


class Taken(msgspec.Struct, frozen=True):
    """How fast a process was. rate: rows per second, NaN if not measured. per_core: rows per second of its CPU."""

    rate: float
    per_core: float


class _Measuring:
    """Measures on one broker. records: payments as JSON. rows: how many of them a turn decides."""

    def __init__(self, kafka: Broker, folder: Path, records: list[bytes], rows: int) -> None:
        self._kafka, self._folder, self._records, self._rows = kafka, folder, records, rows
        self._bundle, self._count = models.bundle("payments"), 0
        kafka.topics("in", partitions=PARTITIONS)
        kafka.send("in", ((None, records[at % len(records)]) for at in range(rows)))
        for ending in ENDINGS.values():
            score_cpu.payments(rows, folder / f"whole.{ending}")

    def turn(self, in_order: Sequence[str]) -> dict[str, Taken]:
        """Each of `WHAT` once."""
        return {what: self._scored(ENDINGS[what]) if what in ENDINGS else self._streamed(what) for what in in_order}

    def _scored(self, ending: str) -> Taken:
        """`tabserve score` on one file, without its start."""
        return Taken(math.nan, score_cpu.rate(self._bundle, self._folder / f"whole.{ending}", self._rows))

    def _streamed(self, delivery: str) -> Taken:
        """What a stream does with the records that are there, from its first commit on."""
        with self._running("in", delivery) as service:
            watched = psutil.Process(service.process.pid)
            first = _wait(service, lambda count: count > 0)
            began, cpu = time.monotonic(), score_cpu.cpu(watched)
            _wait(service, lambda count: count >= self._rows)
            took, used = time.monotonic() - began, score_cpu.cpu(watched) - cpu
        return Taken((self._rows - first) / took, (self._rows - first) / used)

    def paced(self, rate: float, seconds: float) -> float:
        """The share of records that take too long to their commit when they come at this rate."""
        self._count += 1
        topic = f"in{self._count}"
        self._kafka.topics(topic, partitions=PARTITIONS)
        with self._running(topic, "exactly-once") as service:
            service.wait_ready()
            with self._pacing(topic, rate, WARM_UP_SECONDS + seconds):
                _wait(service, lambda count: count >= int(rate * WARM_UP_SECONDS))
                before = _seconds(service)
            _wait(service, lambda count: count >= int(rate * (WARM_UP_SECONDS + seconds)))
            after = _seconds(service)
        return 1 - (after[str(MOST_SECONDS)] - before[str(MOST_SECONDS)]) / (after["+Inf"] - before["+Inf"])

    @contextmanager
    def _pacing(self, topic: str, rate: float, seconds: float) -> Generator[None]:
        """Records come at a rate, from a thread; at the end all are sent."""
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self._pace, topic, rate, seconds)
            yield
            sending.result()

    def _pace(self, topic: str, rate: float, seconds: float) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.address, "linger.ms": 1})
        began, sent = time.monotonic(), 0
        while sent < int(rate * seconds):
            due = min(int((time.monotonic() - began) * rate), int(rate * seconds))
            for at in range(sent, due):
                producer.produce(topic, self._records[at % len(self._records)])
            sent = due
            producer.poll(0)
            time.sleep(PACE_SECONDS)
        producer.flush()

    @contextmanager
    def _running(self, topic: str, delivery: str) -> Generator[Service]:
        """A stream with a group and outputs of its own."""
        self._count += 1
        name = f"turn{self._count}"
        self._kafka.topics(f"{name}.out", f"{name}.dead", partitions=PARTITIONS)
        config = {
            "bootstrap": self._kafka.address,
            "group": name,
            **{"in": topic, "out": f"{name}.out", "dead": f"{name}.dead"},
            "delivery": delivery,
        }
        path, log, port = self._folder / f"{name}.yaml", self._folder / f"{name}.log", free_port()
        path.write_text(json.dumps(config))
        command = [sys.executable, "-P", "-m", "tabserve.cli", "stream", str(self._bundle), f"--config={path}"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--host=127.0.0.1", f"--admin-port={port}"], cwd=ROOT, stdout=file, stderr=file
            )
        service = Service(process, port, 0, port, log)
        try:
            yield service
            assert service.terminate() == 0, service.text()
        finally:
            service.kill()


def _samples(service: Service, name: str) -> dict[str, float]:
    """The values of a metric by its only label."""
    families = text_string_to_metric_families(service.metrics())
    return {
        next(iter(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and len(sample.labels) == 1
    }


def _seconds(service: Service) -> Mapping[str, float]:
    return _samples(service, "tabserve_stream_seconds_bucket")


def _wait(service: Service, enough: Callable[[int], bool]) -> int:
    """Wait until enough records are decided; how many there are then."""
    while True:
        count = int(_samples(service, "tabserve_stream_records_total").get("decided", 0))
        if enough(count):
            return count
        assert service.process.poll() is None, service.text()
        time.sleep(POLL_SECONDS)


def _write(output: Path, about: dict[str, str], found: list[Compared], figures: dict[str, list[float]]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "figures": found, "measured": figures}
    (output / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    (output / "table.md").write_text(_page(about, found, figures))
    click.echo(_page(about, found, figures))


def _page(about: dict[str, str], found: list[Compared], figures: dict[str, list[float]]) -> str:
    head = ("what", "target", "got", "lowest to highest", "verdict")
    rows = [
        (
            one.what,
            f"{'≤' if one.at_most else '≥'} {one.target:g}",
            f"{median(one.got):.3g}",
            f"{min(one.got):.3g} to {max(one.got):.3g}",
            one.verdict,
        )
        for one in found
    ]
    measured = [(what, f"{median(got):,.0f}", f"{min(got):,.0f} to {max(got):,.0f}") for what, got in figures.items()]
    second = report.table(("what", "median", "lowest to highest"), measured)
    return f"# The stream\n\n{report.facts(about)}\n\n{report.table(head, rows)}\n\n{second}\n"


if __name__ == "__main__":
    main()
