"""Takes `tabserve.retrain.v1` events over HTTP, trains on the last week of the log, and puts what is new in place."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from examples.payments.lifecycle.training import train
from tabserve.bundle import Bundle

EVENT = "tabserve.retrain.v1"
DAYS = np.timedelta64(7, "D")


class Handler:
    """A server of events, which trains once for each bundle that an alarm is about, one at a time.

    train: what to do about a bundle, by its digest. trained: the new bundles to come, in order.
    """

    def __init__(self, train: Callable[[str], Bundle]) -> None:
        self.events: list[dict[str, Any]] = []
        self.trained: list[Future[Bundle]] = []
        self._train, self._seen = train, set[str]()
        self._trainer = ThreadPoolExecutor(1)

    def take(self, event: dict[str, Any]) -> bool:
        """Take an event; an event of another type is refused. Several alarms of one bundle are one reason to train."""
        if event.get("type") != EVENT:
            return False
        self.events.append(event)
        digest = event["data"]["digest"]
        if digest not in self._seen:
            self._seen.add(digest)
            self.trained.append(self._trainer.submit(self._train, digest))
        return True

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Listen until the block ends, at the URL that is given."""
        with self._trainer, http.server.ThreadingHTTPServer(("127.0.0.1", 0), _answering(self)) as server:
            listener = threading.Thread(target=server.serve_forever)
            listener.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}/"
            finally:
                server.shutdown()
                listener.join()


def _answering(handler: Handler) -> type[http.server.BaseHTTPRequestHandler]:
    class Answering(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken = handler.take(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(202 if taken else 400)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Answering


def learned(log: Path, labels: Path, digest: str) -> pd.DataFrame:
    """The logged payments of the last days of a bundle, with their outcome: what a model is trained on again."""
    table = ds.dataset(log).to_table(columns=["id", "time", "record"], filter=pc.field("digest") == digest)
    record = pd.DataFrame(table["record"].to_pylist()).assign(payment=table["id"].to_pylist())
    days = table["time"].to_numpy().astype("datetime64[D]")
    recent = record[days > days.max() - DAYS]
    outcomes = pd.DataFrame(ds.dataset(labels).to_table(columns=["id", "label"]).to_pydict())
    known = outcomes.rename(columns={"id": "payment", "label": "outcome"})
    return pd.merge(recent, known, on="payment")


def retrain(log: Path, labels: Path, releases: Path, served: Path, digest: str) -> Bundle:
    """Train the next version and let it take the place of the one that is served."""
    version = str(len(list(releases.iterdir())) + 1)
    bundle = train(learned(log, labels, digest), releases / version, version)
    put(bundle.path, served)
    return bundle


def put(release: Path, served: Path) -> None:
    """Put a copy of a release into the folder that is served; whoever looks sees a whole bundle, or none."""
    new, old = served.with_suffix(".new"), served.with_suffix(".old")
    shutil.copytree(release, new)
    if served.exists():
        served.rename(old)
    new.rename(served)
    shutil.rmtree(old, ignore_errors=True)
