"""`tabserve up --watch`: a bundle that is saved anew is served without a lost request, and a broken one is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import tabserve.bundle
from tests.contract.target import Target
from tests.faults.conftest import save_quick
from tests.faults.load import Tally, ask_grpc, ask_rest, clients
from tests.faults.test_lifecycle import answered_more
from tests.serving import ROOT, Service, free_port

pytestmark = pytest.mark.alone


@contextmanager
def watching(bundle: Path, log: Path) -> Generator[Service]:
    """`tabserve up --watch`, serving; it is stopped at the end, and says so."""
    http, grpc = free_port(), free_port()
    ports = [f"--http-port={http}", f"--grpc-port={grpc}"]
    ports += [f"--predictor-http-port={free_port()}", f"--predictor-grpc-port={free_port()}"]
    command = [sys.executable, "-P", "-m", "tabserve.cli", "up", str(bundle), "--watch", *ports]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=file, stderr=file)
    service = Service(process, http, grpc, int(ports[2].partition("=")[2]), log)
    try:
        service.wait_for(lambda: "Serving until Ctrl-C." in service.text(), "serving")
        yield service
        assert service.terminate() == 0
        assert service.text().endswith("Stopped.\n")
    finally:
        service.kill()


def release(service: Service) -> str | None:
    """The digest of the bundle that answers."""
    return Target(service.url, None, None, None).http("GET", "/v2").headers["tabserve-transformer-release"]


def test_a_bundle_that_is_saved_anew_is_served_without_a_lost_request(tmp_path: Path, logs: Path) -> None:
    bundle = save_quick(tmp_path / "bundle")
    with watching(bundle, logs / "watching.log") as service:
        target, tally = Target(service.url, service.grpc, None, None), Tally()
        rest = partial(ask_rest, tally, [service.http_port], f"{target.path}/infer", target.payload)
        rpc = partial(ask_grpc, tally, [service.grpc_port], target.model, target.payload)
        assert (
            service.get("/v2/health/ready", service.admin_port)[0] == 200
        )  # the predictor, on the port that was given
        with clients(tally, rest, rest, rpc):
            answered_more(service, tally)
            former = release(service)
            saved = tabserve.bundle.load(save_quick(bundle, seed=2)).digest
            service.wait_for(lambda: f"Picked up {saved}." in service.text(), "picked up")
            answered_more(service, tally)
            assert (former != saved, release(service)) == (True, saved)
            (bundle / "schema.yaml").write_text("task: none\n")
            (bundle / "bundle.json").touch()
            service.wait_for(lambda: "Not picked up: schema.yaml: " in service.text(), "refused")
            answered_more(service, tally)
        assert tally.counts.keys() == {"200", "OK"}, tally.counts
        assert release(service) == saved


@pytest.mark.parametrize(
    ("option", "watch"),
    [("--predictor-http-port", []), pytest.param("--http-port", ["--watch"], marks=pytest.mark.long)],
)
def test_a_port_that_is_taken_is_said(
    quick_bundle: Path, quick_predictor: Service, option: str, watch: list[str]
) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "tabserve.cli",
        "up",
        str(quick_bundle),
        option,
        str(quick_predictor.http_port),
    ]
    done = subprocess.run([*command, *watch], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    assert done.returncode == 1
    assert "address already in use" in done.stderr.lower()
    assert "Traceback" not in done.stderr
