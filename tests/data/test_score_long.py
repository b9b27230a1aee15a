"""Scoring in earnest: millions of rows, an object store that fails, kills at random, and every way of being asked."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from tabserve.bundle import Bundle
from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.data import payments
from tests.data.store import CREDENTIALS, Store, unreliable
from tests.serving import Service, running

pytestmark = pytest.mark.long
ROWS, KILLS = 5_000_000, 20
MOST_MIB = 500
COUNT = 20_000
OPTIONS = ("--now=2026-11-30T12:00:00Z", "--keep=amount")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return payments.bundle(tmp_path_factory.mktemp("payments"), trees=50, depth=4)


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    (tmp_path / "s3" / "lake").mkdir(parents=True)
    made = Store(tmp_path / "s3")
    made.start()
    yield made
    made.stop()


def command(bundle: Bundle, source: object, target: object, *options: str) -> list[str]:
    return [sys.executable, "-P", "-m", "tabserve.cli", "score", *map(str, (bundle.path, source, target)), *options]


def start(*arguments: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, **CREDENTIALS}
    return subprocess.Popen(
        command(*arguments, *OPTIONS), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    return out


def peak_mib(process: subprocess.Popen[str]) -> float:
    """The most resident memory that a process ever had until it ended; rusage would count its parent's as well."""
    peak = 0
    while process.poll() is None:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        peak = int(found[1]) if found else peak
        time.sleep(0.1)
    return peak / 1024


def contents(folder: Path) -> dict[str, bytes]:
    """Every output; of the run's own folder, only the list of inputs holds the path."""
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_millions_of_rows_take_little_memory(bundle: Bundle, tmp_path: Path) -> None:
    payments.parquet(tmp_path / "in" / "payments.parquet", ROWS)
    process = start(bundle, tmp_path / "in", tmp_path / "out")
    peak = peak_mib(process)
    said = finished(process)
    print(said, f"peak {peak:.0f} MiB")
    assert f"{ROWS:,} decisions and 0 errors" in said
    assert peak < MOST_MIB
    (output,) = (tmp_path / "out").glob("*.parquet")
    assert pq.ParquetFile(output).metadata.num_rows == ROWS


def killed_again_and_again(bundle: Bundle, source: object, target: object, longest: float) -> int:
    """Run to the end with kills at random; how many there were."""
    moments, kills = random.Random(28), 0
    while kills < KILLS:
        process = start(bundle, source, target)
        try:
            process.communicate(timeout=moments.uniform(1.0, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0
            break
    finished(start(bundle, source, target))
    return kills


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files of 40,000 payments."""
    folder = tmp_path_factory.mktemp("source")
    for part in range(12):
        frame = payments.records(40_000, seed=part)
        (folder / f"part={part:02}").mkdir()
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"part={part:02}" / "a.parquet")
    return folder


def test_kills_leave_the_bytes_of_an_undisturbed_run(bundle: Bundle, source: Path, tmp_path: Path) -> None:
    finished(start(bundle, source, tmp_path / "undisturbed"))
    kills = killed_again_and_again(bundle, source, tmp_path / "killed", longest=6.0)
    print(f"{kills} kills")
    assert kills >= KILLS // 2
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def uploaded(store: Store, source: Path, tmp_path: Path) -> None:
    for one in source.rglob("*.parquet"):
        path = tmp_path / "s3" / "lake" / "in" / one.relative_to(source)
        path.parent.mkdir(parents=True)
        path.write_bytes(one.read_bytes())


def objects(store: Store, folder: str) -> dict[str, bytes]:
    """What a reader of the store sees below a folder; the list of inputs does not name the folder."""
    files = fs.S3FileSystem(
        access_key=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        secret_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=f"127.0.0.1:{store.port}",
        scheme="http",
        region="us-east-1",
    )
    found = files.get_file_info(fs.FileSelector(folder, recursive=True))
    return {
        one.path.removeprefix(f"{folder}/"): files.open_input_file(one.path).read()
        for one in found
        if one.type == fs.FileType.File and not one.path.endswith("/")
    }


def test_kills_leave_the_same_objects_in_a_store(bundle: Bundle, source: Path, store: Store, tmp_path: Path) -> None:
    uploaded(store, source, tmp_path)
    finished(start(bundle, store.uri("lake/in"), store.uri("lake/undisturbed")))
    kills = killed_again_and_again(bundle, store.uri("lake/in"), store.uri("lake/killed"), longest=8.0)
    print(f"{kills} kills")
    assert kills >= KILLS // 2
    expected, got = objects(store, "lake/undisturbed"), objects(store, "lake/killed")
    assert len(expected) == 13
    assert got == expected


def test_refusals_and_half_a_minute_without_the_store_are_survived(
    bundle: Bundle, source: Path, store: Store, tmp_path: Path
) -> None:
    uploaded(store, source, tmp_path)
    finished(start(bundle, store.uri("lake/in"), store.uri("lake/undisturbed")))
    with unreliable(store) as server:
        port = server.server_address[1]
        process = start(bundle, store.uri("lake/in", port), store.uri("lake/out", port))
        pause = threading.Event()
        while not list((tmp_path / "s3" / "lake").glob("out/part=02/*.parquet")):
            assert process.poll() is None, process.communicate()[1][-1000:]
            pause.wait(0.1)  # the server of this process answers meanwhile
        store.stop()
        assert not pause.wait(30)
        store.start()
        finished(process)
        assert server.refused > 10
    undisturbed, got = objects(store, "lake/undisturbed"), objects(store, "lake/out")
    assert {name: content for name, content in got.items() if name != "_tabserve.json"} == {
        name: content for name, content in undisturbed.items() if name != "_tabserve.json"
    }


@pytest.mark.parametrize("two_engines", [False, True], ids=["payments", "two engines"])
def test_a_record_is_decided_the_same_however_it_is_asked(two_engines: bool, tmp_path: Path) -> None:
    bundle = payments.bundle(tmp_path / "bundle", two_engines=two_engines)
    frame = payments.records(COUNT)
    fields = [*bundle.schema.fields, "payment_id"]
    frame = frame[fields]
    records = payments.as_json(frame)
    options = [f"--model_dir={bundle.path}"]
    with running("tabserve_predictor", *options, log=tmp_path / "predictor.log") as predictor:
        host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
        with running("tabserve_transformer", *options, host, log=tmp_path / "transformer.log") as transformer:
            expected = by_v1(transformer, records)
            assert by_v2(transformer, records) == [(one["decision"], one["score"]) for one in expected]
            assert by_grpc(transformer, records) == [(one["decision"], one["score"]) for one in expected]
    source = tmp_path / "in"
    source.mkdir()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), source / "a.parquet")
    frame.to_csv(source / "b.csv", index=False)
    (source / "c.jsonl").write_text("\n".join(map(json.dumps, records)))
    finished(start(bundle, source, tmp_path / "out", "--format=parquet"))
    outputs = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(outputs) == 3
    names = list(expected[0])
    for output in outputs:
        table = pq.read_table(output)
        assert set(table.column("rows").to_pylist()) == {1}
        assert [{name: row[name] for name in names} for row in table.to_pylist()] == expected
    print(f"{COUNT:,} records, engine {set(table.column('engine').to_pylist())}: all the same")


def by_v1(service: Service, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    with closing(http.client.HTTPConnection("127.0.0.1", service.http_port)) as connection:
        for record in records:
            connection.request("POST", "/v1/models/payments:predict", json.dumps({"instances": [record]}))
            found += json.loads(connection.getresponse().read())["predictions"]
    return found


def tensors(record: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: "BYTES", float: "FP64", int: "INT64"}
    return [
        {"name": name, "datatype": kinds[type(value)], "shape": [1], "data": [value]}
        for name, value in record.items()
        if value is not None
    ]


WANTED = ("decision", "score")


def by_v2(service: Service, records: list[dict[str, Any]]) -> list[tuple[str, float]]:
    found = []
    with closing(http.client.HTTPConnection("127.0.0.1", service.http_port)) as connection:
        for record in records:
            body = {"inputs": tensors(record), "outputs": [{"name": name} for name in WANTED]}
            connection.request("POST", "/v2/models/payments/infer", json.dumps(body))
            outputs = {one["name"]: one["data"][0] for one in json.loads(connection.getresponse().read())["outputs"]}
            found.append((outputs["decision"], outputs["score"]))
    return found


def by_grpc(service: Service, records: list[dict[str, Any]]) -> list[tuple[str, float]]:
    found = []
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        for record in records:
            request = pb.ModelInferRequest(model_name="payments")
            for tensor in tensors(record):
                one = request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=[1])
                value = tensor["data"][0]
                if tensor["datatype"] == "BYTES":
                    one.contents.bytes_contents.append(value.encode())
                elif tensor["datatype"] == "FP64":
                    one.contents.fp64_contents.append(value)
                else:
                    one.contents.int64_contents.append(value)
            for name in WANTED:
                request.outputs.add(name=name)
            contents = {each.name: each.contents for each in call(request).outputs}
            found.append((contents["decision"].bytes_contents[0].decode(), contents["score"].fp64_contents[0]))
    return found
