"""100,000 records of a file are asked several times as fast with several requests under way as with one."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tabserve.forwarder import PIECE_BYTES, Forwarder
from tests.data.payments import payments
from tests.serving import Service, free_port

ROWS = 100_000
AWAY_SECONDS = 0.075
"""How long a byte travels to the service, and back: a round trip of 0.15 s, as to another continent."""
LEAST_RATIO = 5.0


class Distance(Forwarder):
    """Delivers everything a while later, in order."""

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(PIECE_BYTES):
            loop.call_later(AWAY_SECONDS, writer.write, data)
        await asyncio.sleep(2 * AWAY_SECONDS)
        writer.close()


def asked(url: str, source: Path, target: Path, in_flight: int) -> float:
    """How many seconds the command takes."""
    command = [sys.executable, "-P", "-m", "tabserve.cli", "request", url, "--file", str(source), "--to", str(target)]
    started = time.monotonic()
    done = subprocess.run([*command, f"--in-flight={in_flight}"], capture_output=True, text=True)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert all(re.search(r" per second", line) for line in done.stderr.splitlines()), done.stderr
    return seconds


@pytest.mark.long
def test_several_requests_under_way_are_several_times_as_fast(payments_transformer: Service, tmp_path: Path) -> None:
    source = tmp_path / "payments.csv"
    payments(ROWS, seed=9)[0].to_csv(source, index=False)
    with Distance("127.0.0.1", free_port(), payments_transformer.http_port) as far:
        for place, port in {"on this machine": payments_transformer.http_port, "0.15 s away": far.port}.items():
            one = asked(f"127.0.0.1:{port}", source, tmp_path / "one.jsonl", in_flight=1)
            many = asked(f"127.0.0.1:{port}", source, tmp_path / "many.jsonl", in_flight=16)
            print(f"{ROWS} records {place}: {one:.1f} s one by one, {many:.1f} s with 16 under way: {one / many:.1f}")
            assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "many.jsonl").read_bytes()
    assert one / many >= LEAST_RATIO
