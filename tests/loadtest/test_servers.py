"""Every kind of user with tabserve's own services, and with KServe's stock server."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loadtest.conftest import TRUSTING, Run, run_together
from tests.serving import ROOT, Service, running

pytestmark = pytest.mark.alone

# Verdicts on latency do not matter here: any of the cores may be busy with something else.
CALM = ("server", "--set=rate=40", "--set=seconds=2", "--set=rows=3", "--set=p50=9000", "--set=p99=9000", TRUSTING)


def runs(folder: Path, server: Service, kinds: list[str], *options: str) -> dict[str, Run]:
    """A run of each kind of users on a server."""
    common = (*CALM, f"--url={server.url}", f"--grpc={server.grpc}", *options)
    return run_together(folder, {kind: (*common, f"--user={kind}") for kind in kinds})


def outcomes(found: dict[str, Run]) -> dict[str, set[str]]:
    """How requests ended, by kind of user."""
    return {kind: set(run.section.outcomes) for kind, run in found.items()}


def test_every_answer_of_the_transformer_is_checked_against_the_bundle(
    transformer: Service, bundle: Path, tmp_path: Path
) -> None:
    kinds = ["json", "binary", "grpc", "records"]
    found = runs(tmp_path, transformer, kinds, f"--bundle={bundle}")

    assert outcomes(found) == {kind: {"ok"} for kind in kinds}, found
    releases = {release.name for run in found.values() for release in run.section.releases}
    assert len(releases) == 1
    assert releases.pop().startswith("sha256:")


def test_every_answer_of_the_predictor_is_checked_against_the_bundle(
    predictor: Service, bundle: Path, tmp_path: Path
) -> None:
    kinds = ["binary"]
    found = runs(tmp_path, predictor, kinds, f"--bundle={bundle}")

    assert outcomes(found) == {kind: {"ok"} for kind in kinds}, found


@pytest.mark.long
def test_kserves_stock_server_is_loaded_unchanged(tmp_path: Path) -> None:
    kinds = ["json", "binary", "grpc"]
    with running("tests.loadtest.kserve_server", log=tmp_path / "kserve.log") as server:
        found = runs(tmp_path, server, kinds, "--model=sum")

    assert outcomes(found) == {kind: {"ok"} for kind in kinds}, found


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [
        sys.executable,
        "-P",
        "-m",
        "tabserve_loadtest",
        "run",
        "server",
        f"--url=http://127.0.0.1:{port}",
        "--model=x",
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 3
    assert f"INVALID: no answer from http://127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected --url, or --up with --bundle"),
        (("--url=http://127.0.0.1:1", "--set=speed=3"), "got 'speed'"),
        (("--url=http://127.0.0.1:1", "--user=grpc"), "need --grpc HOST:PORT"),
    ],
)
def test_options_that_make_no_run_are_refused(options: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-P", "-m", "tabserve_loadtest", "run", "server", *options]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 64
    assert message in done.stderr
