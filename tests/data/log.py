"""A transformer that logs its decisions, requests to it, and what its log holds."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.data.store import CREDENTIALS
from tests.serving import Service, start

RESULTS = ("written", "sampled", "dropped", "failed")
_COUNTS = re.compile(r"decision log closed: (\d+) written, (\d+) sampled, (\d+) dropped, (\d+) failed")
_METRIC = re.compile(r'^tabserve_log_records_total\{result="(\w+)"\} ([\d.e+]+)$', re.MULTILINE)


@contextmanager
def logging(
    bundle: Path, predictor: Service, to: object, log: Path, *options: str, within: Sequence[str] = ()
) -> Generator[Service]:
    """A ready transformer with a decision log, which is ended when the block is left."""
    host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
    given = [f"--model_dir={bundle}", host, f"--decision_log={to}", "--log_format=text", "--drain_seconds=0", *options]
    service = start("tabserve_transformer", *given, log=log, environment=CREDENTIALS, within=within)
    try:
        service.wait_ready()
        yield service
    finally:
        service.kill()


def asked(service: Service, model: str, records: Sequence[dict[str, Any]], requests: int, name: str = "r") -> set[int]:
    """Send the records so many times, each request with its own id; the statuses of the answers."""
    body = json.dumps({"instances": list(records)})
    found = set()
    with closing(HTTPConnection("127.0.0.1", service.http_port, timeout=30)) as connection:
        for number in range(requests):
            connection.request("POST", f"/v1/models/{model}:predict", body, {"x-request-id": f"{name}{number}"})
            answer = connection.getresponse()
            answer.read()
            found.add(answer.status)
    return found


def counted(service: Service) -> dict[str, int]:
    """The counts on the page of metrics."""
    return {result: int(float(count)) for result, count in _METRIC.findall(service.metrics())}


def wait_counted(service: Service, result: str, least: int) -> None:
    """Wait until so many records have this result."""
    service.wait_for(lambda: counted(service)[result] >= least, f"{least} {result}")


def closed(service: Service) -> dict[str, int]:
    """The counts that an ended service has logged."""
    (found,) = _COUNTS.findall(service.text())
    return dict(zip(RESULTS, map(int, found), strict=True))


def logged(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder's files; every file must be whole."""
    return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def uri(port: int, host: str = "127.0.0.1") -> str:
    """A place in a store at a port."""
    return f"s3://lake/log?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
