"""A clock that jumps and disks that are full (fault catalogue 44 and 52)."""

from __future__ import annotations

import glob
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import ROOT, Service, running, start

pytestmark = pytest.mark.alone

FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"
DAY = timedelta(days=1)
PATH = "/v2/models/echo/infer"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"

MOUNT = 'mount -t tmpfs -o size=256k full "$0" && head -c 1M /dev/zero >"$0/rest"; exec "$@"'
"""A shell's commands that make a folder a disk without any space left, seen only by the process that it becomes."""


def jumping(clock: Path, log: Path) -> Service:
    """An echo whose clock, but for the monotonic one, is off by what is in a file."""
    libraries = glob.glob(FAKETIME)
    if not libraries:
        pytest.skip("there is no libfaketime: apt-get install libfaketime")
    clock.write_text("+0")
    faked = {"LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    service = start("tests.echo", "--keep_alive=60", log=log, environment={**faked, "DONT_FAKE_MONOTONIC": "1"})
    service.wait_ready()
    return service


@pytest.mark.long
@pytest.mark.parametrize("days", [1, -1])
def test_44_a_clock_that_jumps_changes_no_deadline(logs: Path, tmp_path: Path, days: int) -> None:
    service = jumping(tmp_path / "clock", logs / f"clock{days}.log")
    subject = Subject(service)
    held = {"parameters": {"hold": True}}
    message = subject.payload.message("echo", parameters={"hold": pb.InferParameter(bool_param=True)})
    body = json.dumps(subject.payload.json(**held)).encode()
    late = wire.post(PATH, "x-request-timeout-ms: 300", f"Content-Length: {len(body)}", body=body)
    try:
        with ThreadPoolExecutor(2) as pool, wire.connection(service.http_port) as idle:
            wire.send(idle, LIVE)
            assert wire.answers(idle)[0].status == 200
            over_rest = pool.submit(subject.target.infer, subject.payload.json(**held))
            over_grpc = pool.submit(subject.target.call, "ModelInfer", message)
            service.wait_metric("echo_held", 2)
            (tmp_path / "clock").write_text(f"{days:+d}d")
            assert wire.ask(service.http_port, late) == [504]
            wire.send(idle, LIVE)
            assert wire.answers(idle)[0].status == 200
            assert service.get("/v2/health/live", service.admin_port)[0] == 200
            service.signal(signal.SIGUSR1)
            assert over_rest.result(60).status == 200
            assert over_grpc.result(60).outputs
        assert service.terminate() == 0
        last = datetime.fromisoformat(service.text().splitlines()[-1][:19])
        assert abs(datetime.now() + days * DAY - last) < DAY / 2, "the process has seen the jump"
    finally:
        service.kill()


def on_full_disk(folder: Path) -> Sequence[str]:
    """The command that a process is started with for which this folder is a full disk."""
    command = ("unshare", "-rm", "sh", "-c", MOUNT, str(folder))
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    return command


@pytest.mark.long
@pytest.mark.parametrize("kind", ["predictor", "transformer"])
def test_52_services_need_no_space_on_a_disk(
    quick_bundle: Path, quick_predictor: Service, tmp_path: Path, kind: str
) -> None:
    within = (*on_full_disk(tmp_path), "env", f"TMPDIR={tmp_path}", f"HOME={tmp_path}")
    options = [f"--model_dir={quick_bundle}", "--drain_seconds=0"]
    options += [f"--predictor_host=127.0.0.1:{quick_predictor.http_port}"] if kind == "transformer" else []
    log = quick_bundle.parent / f"full_{kind}.log"
    with running(f"tabserve_{kind}", *options, log=log, within=within) as service:
        Subject(service).assert_serves()
        assert service.terminate() == 0


def test_52_a_log_on_a_full_disk_stops_no_answer(quick_bundle: Path, tmp_path: Path) -> None:
    within = ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")
    options = (f"--model_dir={quick_bundle}", "--drain_seconds=0", "--log_level=debug")
    with running("tabserve_predictor", *options, log=tmp_path / "log", within=within) as service:
        subject = Subject(service)
        subject.target.infer({"inputs": []}).assert_error(400, 400)
        subject.assert_serves()
        service.terminate()


SAVE = """
import sys, numpy, sklearn.linear_model
from tabserve.train import save
from tabserve.bundle import load, BundleError
rows = numpy.random.default_rng(0).random((3000, 2))
model = sklearn.linear_model.LogisticRegression().fit(rows, rows[:, 0] > 0.5)
sample = {"a": rows[:, 0].tolist(), "b": rows[:, 1].tolist()}
try:
    save(model, sys.argv[1] + "/bundle", name="m", version="1", schema=sys.argv[2], sample=sample, engine="sklearn")
except (OSError, BundleError) as error:
    print("refused:", error)
try:
    load(sys.argv[1] + "/bundle")
except BundleError as error:
    print("no bundle:", error)
"""
SCHEMA = """
task: binary
record: [{name: a, type: number}, {name: b, type: number}]
features: [a, b]
outputs: {classes: [x, y]}
"""


@pytest.mark.long
def test_52_a_bundle_saved_to_a_full_disk_is_none(tmp_path: Path) -> None:
    disk, schema = tmp_path / "disk", tmp_path / "schema.yaml"
    disk.mkdir()
    schema.write_text(SCHEMA)
    command = [*on_full_disk(disk), sys.executable, "-c", SAVE, str(disk), str(schema)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)

    refused, none = done.stdout.splitlines()
    assert refused.startswith("refused:")
    assert "No space left on device" in refused
    assert none.startswith("no bundle:")
