"""Train, serve, log, find what has changed, train again, serve that: python -m examples.payments.lifecycle [FOLDER].

Run it in a checkout. What it leaves is in the folder that it names: reports, cards, and a page that links to them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples.payments.lifecycle import page
from examples.payments.lifecycle.handler import Handler, put, retrain
from examples.payments.lifecycle.page import Week
from examples.payments.lifecycle.payments import WEEK, of_day, of_days
from examples.payments.lifecycle.training import train
from tabserve.bundle import Bundle
from tabserve.client import Client
from tabserve.up import choose_ports

WEEKS, BEFORE = 4, 28
"""How many weeks are served, and how many days before them are trained on."""
PATIENCE_SECONDS = 120.0
LOGGED = "date=*/**/*.parquet"


class Loop:
    """The folders of a run, and its weeks so far. rows: payments a day."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.written, self.log, self.labels = folder / "written", folder / "log", folder / "labels"
        self.releases, self.served = folder / "releases", folder / "served"
        self.weeks: list[Week] = []
        self._moved: set[Path] = set()
        self._rows = 0
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        """Tell a stage, with the seconds since the beginning."""
        print(f"[{time.monotonic() - self._begun:3.0f} s] {text}", flush=True)

    def begin(self) -> Bundle:
        """Train version 1 on what was paid before the first week."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for place in (self.labels, self.releases, self.log):
            place.mkdir(parents=True)
        bundle = train(of_days(-BEFORE, -1, self.rows), self.releases / "1", "1")
        put(bundle.path, self.served)
        self.say(f"Version 1 is trained on {BEFORE * self.rows:,} payments of four weeks: {bundle.digest[:19]}…")
        return bundle

    def week(self, bundle: Bundle, service: str, notify: str) -> Week:
        """Ask the services about a week's payments, learn what they turned out to be, and let the monitor look."""
        number = len(self.weeks) + 1
        first = (number - 1) * WEEK
        with Client(service) as client:
            payments = pd.concat([self._decided(client, day) for day in range(first, first + WEEK)])
        self._collect(number * WEEK * self.rows)
        outcomes = pa.table({"id": payments.payment.tolist(), "label": payments.outcome.tolist()})
        pq.write_table(outcomes, self.labels / f"week-{number}.parquet")
        alarm, verdict = self._monitor(bundle, notify)
        self.weeks.append(Week(number, bundle.manifest.version, payments, alarm, verdict))
        return self.weeks[-1]

    def _decided(self, client: Client, day: int) -> pd.DataFrame:
        """A day's payments with their decisions."""
        payments = of_day(day, self.rows)
        times = {name: payments[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name in ("opened", "paid")}
        decided = client.decide("payments", payments.drop(columns="outcome").assign(**times))
        return payments.assign(day=day, decision=decided["decision"].to_numpy())

    def _collect(self, rows: int) -> None:
        """Wait until so many payments are in the log that is looked at."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._rows < rows:
            for path in set(self.written.glob(LOGGED)) - self._moved:
                self._move(path)
            if time.monotonic() > deadline:
                sys.exit(f"{rows} decisions are not logged after {PATIENCE_SECONDS:.0f} s, only {self._rows}")
            time.sleep(0.1)

    def _move(self, path: Path) -> None:
        """Put the decisions in a file of the log at the time of their payments.

        A service logs when it decides, and here it decides about four weeks within a minute. So the log that is looked
        at is a copy in which `time` is when the payment was made. Nothing else in it is changed. The record that
        `tabserve up` tries is left out: it is no payment of these weeks, and has no id.
        """
        logged = pq.read_table(path, partitioning=None)
        table = logged.filter(pc.starts_with(logged["id"], "+"))
        paid = pc.struct_field(table["record"].combine_chunks(), "paid")
        at = table.schema.get_field_index("time")
        time_of = table.schema.field(at)
        seconds = pc.multiply(paid, 1e6).cast(pa.int64()).cast(time_of.type)
        pq.write_table(table.set_column(at, time_of, seconds), self.log / path.name)
        self._moved.add(path)
        self._rows += len(table)

    def _monitor(self, bundle: Bundle, notify: str) -> tuple[bool, str]:
        """Whether the monitor has an alarm, and its verdict."""
        out = self.folder / f"monitor-{bundle.manifest.version}"
        places = ["--bundle", bundle.path, "--labels", self.labels, "--out", out, "--notify", notify]
        done = _tabserve("monitor", self.log, *places, statuses=(0, 3))
        return done.returncode == 3, done.stdout.partition("\n")[0]

    def finish(self) -> Path:
        """Write a card of each version, tested on the week that it decided last, and the page that links to all."""
        for version, week in {week.version: week for week in self.weeks if not week.alarm}.items():
            test = self.folder / f"week-{week.number}.parquet"
            week.payments.drop(columns=["day", "decision"]).to_parquet(test)
            card = self.folder / f"card-{version}.html"
            options = ["--labels", test, "--label", "outcome", "--out", card]
            _tabserve("bundle", "card", self.releases / version, *options)
        return page.write(self.folder, self.weeks)


def _tabserve(*arguments: object, statuses: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tabserve.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in statuses:
        sys.exit(done.stderr)
    return done


@contextmanager
def up(served: Path, written: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Serve a folder's bundle, also one that takes its place: the URL, and what waits for a line of `tabserve up`."""
    ports = choose_ports()
    given = [f"--http-port={ports.http}", f"--grpc-port={ports.grpc}", "--watch", f"--log={written}"]
    command = [sys.executable, "-m", "tabserve.cli", "up", str(served), *given]
    with (
        (served.parent / "services.log").open("w") as lines,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=lines, text=True) as process,
    ):
        assert process.stdout is not None
        told = process.stdout

        def wait(words: str) -> None:
            if not any(words in line for line in told):
                sys.exit(f"tabserve up ended; see {lines.name}")

        try:
            wait("Serving until Ctrl-C.")
            yield f"http://127.0.0.1:{ports.http}", wait
        finally:
            process.terminate()
            process.communicate()


def run(folder: Path, rows: int) -> None:
    """Four weeks, from version 1 to version 2."""
    loop = Loop(folder, rows)
    bundle = loop.begin()
    handler = Handler(partial(retrain, loop.log, loop.labels, loop.releases, loop.served))
    with handler.serving() as notify, up(loop.served, loop.written) as (service, wait):
        loop.say(f"It is served at {service}, and each decision is logged. A handler waits for events at {notify}")
        for _ in range(WEEKS):
            week = loop.week(bundle, service, notify)
            loop.say(f"Week {week.number}, version {week.version}: {week.told}\n        {week.verdict}")
            if week.alarm:
                subjects = ", ".join(event["subject"] for event in handler.events)
                loop.say(f"{len(handler.events)} events tabserve.retrain.v1 reached the handler: {subjects}")
                bundle = handler.trained[-1].result()
                handler.events.clear()
                loop.say(
                    f"It trained version {bundle.manifest.version} on what was logged in the last week, and saved it"
                )
                wait(f"Picked up {bundle.digest}")
                loop.say("New services were started beside the old ones, and took their place")
    loop.say(f"Look at {loop.finish()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.payments.lifecycle", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lifecycle"))
    parser.add_argument("--rows", type=int, default=1_000, help="payments a day")
    arguments = parser.parse_args()
    run(arguments.folder.absolute(), arguments.rows)
