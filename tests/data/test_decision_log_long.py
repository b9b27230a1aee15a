"""The decision log under attack: every request is answered, every record is counted, and memory stays flat.

The minutes of the last test are in the variable MINUTES.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.silent import silent
from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.data.log import asked, closed, counted, logged, logging, uri, wait_counted
from tests.data.store import CREDENTIALS, Store
from tests.serving import Service

pytestmark = pytest.mark.long
MODEL = "breast-cancer"
MINUTES = float(os.environ.get("MINUTES", "30"))
REQUESTS = 2_000
CLOSE_SECONDS = 5.0
END_SECONDS = 15.0
"""How long a service may take to end, besides what its log takes."""
SMALL = ("--max_rows=500", "--decision_log_buffer_rows=500", "--decision_log_file_rows=100")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
GROWTH_MIB = 12.0
SAMPLE_SECONDS = 5.0


@pytest.fixture(scope="module")
def record(bundle: Path) -> dict[str, Any]:
    return expected.record(bundles.load(bundle), 0)


class _Refusing(BaseHTTPRequestHandler):
    """Answers every request with 500."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response_only(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def refusing() -> Generator[int]:
    """A port at which every request gets a 500."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def store(tmp_path: Path) -> Generator[Store]:
    (tmp_path / "s3" / "lake").mkdir(parents=True)
    made = Store(tmp_path / "s3")
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def slow_names(tmp_path: Path) -> Generator[Sequence[str]]:
    """The start of a command whose process asks a name server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.77", 53))
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.77\n")
        mounted = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        yield ["unshare", "--mount", "sh", "-c", mounted, str(tmp_path / "resolv.conf")]


@contextmanager
def full_disk(tmp_path: Path) -> Generator[Path]:
    """A folder that holds 128 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    "attack",
    ["hanging", "500s", "revoked", "nobody", pytest.param("names", marks=AS_ROOT), pytest.param("full", marks=AS_ROOT)],
)
def test_an_attack_costs_records_and_no_request(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path, attack: str
) -> None:
    within: Sequence[str] = ()
    to: object
    with ExitStack() as stack:
        if attack == "hanging":
            to = uri(stack.enter_context(silent()))
        elif attack == "500s":
            to = uri(stack.enter_context(refusing()))
        elif attack == "revoked":
            to = stack.enter_context(store(tmp_path)).uri("lake/log").replace("s3://", "s3://revoked:secret@")
        elif attack == "nobody":
            to = uri(1)
        elif attack == "names":
            to, within = uri(80, "store.example"), stack.enter_context(slow_names(tmp_path))
        else:
            to = stack.enter_context(full_disk(tmp_path))
        log = tmp_path / "transformer.log"
        service = stack.enter_context(logging(bundle, predictor, to, log, *SMALL, within=within))
        began = time.monotonic()
        assert asked(service, MODEL, [record], REQUESTS) == {200}
        took = time.monotonic() - began
        wait_counted(service, "dropped", 1)
        page = counted(service)
        ending = time.monotonic()
        assert service.terminate() == 0
        ended = time.monotonic() - ending
        kept = logged(to) if isinstance(to, Path) else []
        left = [path.name for path in to.rglob("_*")] if isinstance(to, Path) else []

    counts = closed(service)
    print(f"{attack}: {REQUESTS / took:.0f} requests per second, ended in {ended:.1f} s, {page} then {counts}")
    assert sum(counts.values()) == REQUESTS
    assert counts["written"] == len(kept)
    assert left == []
    assert ended < CLOSE_SECONDS + END_SECONDS
    assert "secret" not in service.text()


def test_a_store_that_comes_back_gets_what_was_kept(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path
) -> None:
    with store(tmp_path) as made:
        made.stop()
        log = tmp_path / "transformer.log"
        options = ("--decision_log_file_seconds=0.5",)
        with logging(bundle, predictor, made.uri("lake/log"), log, *options) as service:
            assert asked(service, MODEL, [record], REQUESTS) == {200}
            service.wait_for(lambda: "decision records, and tries again" in service.text(), "told")
            made.start()
            wait_counted(service, "written", REQUESTS)
            assert "decision records are written again" in service.text()
            assert service.terminate() == 0
    assert closed(service) == {"written": REQUESTS, "sampled": 0, "dropped": 0, "failed": 0}
    assert len(logged(tmp_path / "s3" / "lake" / "log")) == REQUESTS


def test_an_id_and_old_days_are_removed_from_a_store(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path
) -> None:
    with store(tmp_path) as made:
        log = tmp_path / "transformer.log"
        with logging(bundle, predictor, made.uri("lake/log"), log) as service:
            assert asked(service, MODEL, [record], 50) == {200}
            assert service.terminate() == 0
        folder = tmp_path / "s3" / "lake" / "log"
        (before,) = folder.rglob("*.parquet")
        old = folder / "date=2020-01-01" / before.relative_to(folder).name
        old.parent.mkdir()
        shutil.copy(before, old)
        ids = {row["id"] for row in logged(before.parent)}
        gone = min(ids)
        prune = ["log", "prune", made.uri("lake/log"), "--older-than", "180d", "--erase", gone]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tabserve.cli", *prune],
            capture_output=True, text=True, check=True, env={**os.environ, **CREDENTIALS},
        )  # fmt: skip

    print(done.stdout)
    assert [path.parent.parent.name for path in folder.rglob("*.parquet")] == [before.parent.parent.name]
    assert {row["id"] for row in logged(folder)} == ids - {gone}
    assert not any(gone.encode() in path.read_bytes() for path in tmp_path.joinpath("s3").rglob("*") if path.is_file())


def ask_until(stop: threading.Event, service: Service, record: dict[str, Any], name: str, answered: list[int]) -> None:
    """Ask in rounds until the event; each round's number of requests is appended."""
    number = 0
    while not stop.is_set():
        assert asked(service, MODEL, [record], 200, f"{name}-{number}-") == {200}
        answered.append(200)
        number += 1


@pytest.mark.parametrize("sink", ["folder", "hanging"])
def test_memory_is_flat(bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path, sink: str) -> None:
    """Half of the minutes for each sink: the last third's memory against that of the third before."""
    with ExitStack() as stack:
        to: object = tmp_path / "log" if sink == "folder" else uri(stack.enter_context(silent()))
        options = ("--decision_log_file_seconds=10",)
        service = stack.enter_context(logging(bundle, predictor, to, tmp_path / "transformer.log", *options))
        stop = threading.Event()
        answered: list[list[int]] = [[], []]
        clients = [
            threading.Thread(target=ask_until, args=(stop, service, record, f"client{at}", each))
            for at, each in enumerate(answered)
        ]
        for client in clients:
            client.start()
        resident = []
        end = time.monotonic() + MINUTES / 2 * 60
        while time.monotonic() < end:
            assert not service.ended(SAMPLE_SECONDS)
            resident.append(service.resident_bytes() / 2**20)
        stop.set()
        for client in clients:
            client.join()
        assert service.terminate() == 0

    third = len(resident) // 3
    before, after = statistics.median(resident[third : 2 * third]), statistics.median(resident[2 * third :])
    counts, sent = closed(service), sum(map(sum, answered))
    print(f"{sink}: {sent} records in {MINUTES / 2:g} minutes, {before:.1f} then {after:.1f} MiB, {counts}")
    assert sum(counts.values()) == sent
    assert after - before < GROWTH_MIB
    assert (len(logged(tmp_path / "log")) if sink == "folder" else 0) == counts["written"]
