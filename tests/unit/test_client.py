"""The client's answers are the service's, over REST and gRPC, with and without TLS, for records and for columns."""

from __future__ import annotations

import datetime
import ssl
import subprocess
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tabserve.client import AsyncClient, Client, ServiceError, columns
from tabserve.client.address import parse as address
from tabserve.forwarder import Forwarder
from tabserve.inference.tensors import TensorSpec
from tabserve.schema.columns import Columns
from tabserve.schema.reading import parse
from tabserve.schema.records import Records
from tests.serving import Service, free_port
from tests.unit.test_records import NEW_YEAR, NOW, RECORD, SECOND, TEXT

pytestmark = pytest.mark.anyio
MODEL = "breast-cancer"
FIELDS = ["radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points",
          "symmetry", "fractal_dimension"]  # fmt: skip
ROWS = [
    [25.38, 17.33, 184.6, 2019.0, 0.1622, 0.6656, 0.7119, 0.2654, 0.4601, 0.1189],
    [13.5, 15.64, 86.97, 549.1, 0.1385, 0.1266, 0.1242, 0.09391, 0.2827, 0.06771],
    [12.0, 15.0, 80.0, 500.0, 0.1, 0.1, 0.1, 0.05, 0.2, 0.06],
]
PATIENTS = [dict(zip(FIELDS, row, strict=True)) for row in ROWS]
FRAME = pd.DataFrame(ROWS, columns=FIELDS, index=["a", "b", "c"])
BAD = {**PATIENTS[1], "radius": -1.0}


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, transformer: Service) -> Generator[Client]:
    url = transformer.url if request.param == "http" else f"grpc://{transformer.grpc}"
    with Client(url) as made:
        yield made


@pytest.fixture(scope="module")
def decisions(transformer: Service) -> list[dict[str, Any]]:
    with Client(transformer.url) as made:
        return made.decide(MODEL, PATIENTS)


def test_records_are_decided(client: Client, decisions: list[dict[str, Any]]) -> None:
    assert [one["decision"] for one in decisions] == ["refer today", "routine follow-up", "routine follow-up"]
    assert client.decide(MODEL, PATIENTS) == decisions
    assert client.decide(MODEL, []) == []
    assert client.ready()


def test_a_frame_is_decided_with_its_index(client: Client, decisions: list[dict[str, Any]]) -> None:
    frame = FRAME.assign(patient=["x", "y", "z"])
    pd.testing.assert_frame_equal(client.decide(MODEL, frame), pd.DataFrame(decisions, index=frame.index))


def test_arrays_are_decided(client: Client, decisions: list[dict[str, Any]]) -> None:
    arrays = {name: FRAME[name].to_numpy(np.float32 if name == "area" else np.float64) for name in FIELDS}
    made = client.decide(MODEL, arrays)
    assert made["decision"].tolist() == [one["decision"] for one in decisions]
    assert made["score"].tolist() == pytest.approx([one["score"] for one in decisions], rel=1e-5)
    assert made["reasons"].shape == (3, 3)


def test_good_records_are_sifted_from_bad_ones(client: Client, decisions: list[dict[str, Any]]) -> None:
    batch: list[dict[str, Any]] = [PATIENTS[0], BAD, {**PATIENTS[1], "area": "big", "are": 1}, PATIENTS[2]]
    made, errors = client.sift(MODEL, batch)
    frame, of_frame = client.sift(MODEL, pd.DataFrame([PATIENTS[0], BAD, PATIENTS[2]], index=["a", "b", "c"]))
    arrays, _ = client.sift(MODEL, {name: np.array([PATIENTS[0][name], BAD[name]]) for name in FIELDS})

    assert made == [decisions[0], None, None, decisions[2]]
    assert sorted((error["row"], error["field"]) for error in errors) == [(1, "radius"), (2, "are"), (2, "area")]
    assert frame.index.tolist() == ["a", "c"]
    assert of_frame == [{"row": 1, "field": "radius", "expected": "a number from 0 to 100", "got": "-1"}]
    assert arrays["row"].tolist() == [0]
    assert client.sift(MODEL, [{"radius": "big"}])[0] == [None]


def test_a_bad_record_is_named(client: Client) -> None:
    with pytest.raises(ServiceError, match="record 1, field `radius`: expected a number from 0 to 100"):
        client.decide(MODEL, [PATIENTS[0], BAD])
    with pytest.raises(ServiceError, match="record 1, field `radius`: expected a number"):
        client.decide(MODEL, [PATIENTS[0], {**BAD, "radius": "big"}])
    with pytest.raises(ServiceError, match="no such model"):
        client.decide("other", PATIENTS)


async def test_the_asynchronous_client_answers_the_same(transformer: Service, decisions: list[dict[str, Any]]) -> None:
    async with AsyncClient(transformer.url) as client:
        assert await client.model_name() == MODEL
        assert await client.ready()
        assert await client.decide(MODEL, PATIENTS) == decisions
        frame, errors = await client.sift(MODEL, FRAME.assign(radius=[1, -1, 2]))
        assert (frame.index.tolist(), [error["row"] for error in errors]) == (["a", "c"], [1])
        assert (await client.metadata(MODEL)).name == MODEL


def test_several_threads_may_ask(client: Client, decisions: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: client.decide(MODEL, PATIENTS), range(40))) == [decisions] * 40


@contextmanager
def encrypted(port: int, folder: Path) -> Generator[tuple[int, str]]:
    """A port that speaks TLS, in front of another that does not, and the certificate to trust."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen = free_port()
    with Forwarder("127.0.0.1", chosen, port, ssl=context):
        yield chosen, str(certificate)


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_tls_with_a_certificate_of_ones_own(
    scheme: str, transformer: Service, tmp_path: Path, decisions: list[dict[str, Any]]
) -> None:
    port = transformer.http_port if scheme == "https" else transformer.grpc_port
    with encrypted(port, tmp_path) as (chosen, certificate):
        with Client(f"{scheme}://127.0.0.1:{chosen}", ca=certificate) as client:
            assert client.decide(MODEL, PATIENTS) == decisions
        distrusting = pytest.raises(ServiceError, match=f"no answer from {scheme}://127.0.0.1:{chosen}")
        with Client(f"{scheme}://127.0.0.1:{chosen}", timeout=5) as client, distrusting:
            client.metadata(MODEL)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8080", ("http", "127.0.0.1", 8080, "")),
        ("fraud.example.com", ("http", "fraud.example.com", 80, "")),
        ("https://fraud.example.com/models/", ("https", "fraud.example.com", 443, "/models")),
        ("grpcs://[::1]", ("grpcs", "::1", 443, "")),
    ],
)
def test_an_address_may_have_no_scheme(url: str, expected: tuple[Any, ...]) -> None:
    assert address(url) == expected


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "host:port", "http://host:99999", "host/?a=1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ServiceError, match="expected http, https, grpc or grpcs://HOST:PORT, got"):
        Client(url)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_answers(scheme: str) -> None:
    port = free_port()
    with Client(f"{scheme}://127.0.0.1:{port}", timeout=5) as client:
        assert not client.ready()
        with pytest.raises(ServiceError, match=f"no answer from {scheme}://127.0.0.1:{port}"):
            client.decide(MODEL, PATIENTS)


def test_over_grpc_the_model_must_be_named() -> None:
    with Client("grpc://127.0.0.1:1") as client, pytest.raises(ServiceError, match="give the model's name"):
        client.model_name()


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Generator[str]:
    """The address of an HTTP server that is none of ours."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(status: int, body: bytes, headers: Mapping[str, str] = {}) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


@pytest.mark.parametrize(
    ("status", "body", "message", "later"),
    [
        (200, b"<html>", "expected a transformer's answer from 127.0.0.1:", None),
        (200, b"[1]", "expected a transformer's answer from 127.0.0.1:", None),
        (502, b"<html>", "502: Bad Gateway", None),
        (503, b'{"error": "too many"}', "503: too many", 3.0),
    ],
)
def test_an_answer_that_is_not_ours_is_told(status: int, body: bytes, message: str, later: float | None) -> None:
    with serving(reply(status, body, {"retry-after": "3"})) as url, Client(url) as client:
        with pytest.raises(ServiceError, match=message) as caught:
            client.model_name()
        assert caught.value.retry_after == later


def test_a_kept_connection_that_the_server_has_closed_is_opened_again() -> None:
    def closing(handler: BaseHTTPRequestHandler) -> None:
        reply(200, b'{"models": ["m"]}')(handler)
        handler.close_connection = True  # without saying so

    with serving(closing) as url, Client(url) as client:
        assert [client.model_name() for _ in range(5)] == ["m"] * 5


SPECS = Records(parse(TEXT, "schema.yaml")).tensor_specs
GIVEN = [RECORD | {"asked": NOW, "income": 1.5, "region": "n", "tier": "a"}, SECOND | {"opened": NEW_YEAR}]


def read(given: Any, specs: tuple[TensorSpec, ...] = SPECS) -> Columns:
    """What the service reads in columns."""
    return Records(parse(TEXT, "schema.yaml"), clock=lambda: NOW).from_tensors(columns.of_arrays(given, specs))


def same(found: Columns, expected: Columns) -> None:
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)


def expected() -> Columns:
    return Records(parse(TEXT, "schema.yaml"), clock=lambda: NOW).convert(GIVEN)


def typed() -> pd.DataFrame:
    """The records as a DataFrame, with a dtype for each field."""
    frame = pd.DataFrame(GIVEN)
    frame["opened"] = pd.to_datetime([NEW_YEAR, NEW_YEAR], unit="s")
    return frame


@pytest.mark.parametrize(
    "dtypes",
    [
        {},
        {"amount": "float32", "visits": "int64", "member": "bool"},
        {"amount": "Float64", "visits": "Int64", "member": "boolean", "country": "string", "tier": "string"},
        {"country": "category", "region": "category", "income": "Float64"},
        {"opened": "datetime64[ns]"},
        {"opened": "datetime64[s]"},
        {"opened": "datetime64[ns, UTC]"},
        {"opened": "object", "member": "object", "visits": "object"},
    ],
    ids=str,
)
def test_columns_of_any_dtype_are_read_as_the_same_records(dtypes: dict[str, Any]) -> None:
    frame = typed()
    for name, dtype in dtypes.items():
        frame[name] = frame[name].dt.tz_localize(dtype[15:-1]) if "UTC" in dtype else frame[name].astype(dtype)
    if dtypes.get("opened") == "object":
        frame["opened"] = [RECORD["opened"]] * 2
    same(read(frame), expected())


def test_times_in_another_zone_are_the_same_times() -> None:
    frame = typed()
    frame["opened"] = frame["opened"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    same(read(frame), expected())


def test_lists_and_arrays_are_columns_too() -> None:
    lists = {name: [record.get(name) for record in GIVEN] for name in GIVEN[0]}
    lists["opened"] = [RECORD["opened"]] * 2
    same(read(lists), expected())
    arrays = {name: np.array(values, object) for name, values in lists.items()}
    same(read({**arrays, "opened": np.array([NEW_YEAR] * 2), "amount": np.array([12.5, 0], np.float16)}), expected())


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_value_is_missing_in_every_kind_of_column(missing: Any) -> None:
    frame = typed()
    frame["region"] = pd.Series(["n", missing], dtype=object)
    frame["income"] = pd.array([1.5, missing], dtype="Float64")
    made = read(frame)
    assert made["region"].tolist() == ["n", None]
    assert np.isnan(made["income"]).tolist() == [False, True]


def test_a_boolean_may_be_missing() -> None:
    (tensor,) = columns.of_arrays(
        {"member": pd.array([True, None], dtype="boolean")}, [TensorSpec("member", "BOOL", (-1,))]
    )
    np.testing.assert_array_equal(tensor.array, [1.0, np.nan])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": ["12.5", "0"]}, "column `amount`: expected a number for each record, got str"),
        ({"amount": [True, False]}, "column `amount`: expected a number for each record, got bool"),
        ({"visits": [1, "2"]}, "column `visits`: expected a whole number for each record, got int, str"),
        ({"member": [1, 0]}, "column `member`: expected true or false for each record, got int"),
        ({"country": [datetime.date(2024, 1, 1)] * 2}, "column `country`: expected text for each record, got date"),
        ({"amount": [[1.0], [2.0]]}, r"column `amount`: expected one value for each record, got shape \[2, 1\]"),
    ],
)
def test_a_column_of_another_kind_is_named(change: dict[str, Any], message: str) -> None:
    lists = {name: [record.get(name) for record in GIVEN] for name in GIVEN[0]}
    with pytest.raises(ValueError, match=message):
        columns.of_arrays({**lists, "opened": [NEW_YEAR] * 2, **change}, SPECS)


def test_a_column_with_nearly_the_name_of_a_missing_one_is_not_ignored() -> None:
    with pytest.raises(ValueError, match=r"column `amount`: missing \(did you mean `amout`\?\)"):
        columns.of_arrays({"amout": [1.0]}, SPECS)
    with pytest.raises(ValueError, match="expected columns named amount, country"):
        columns.of_arrays({"x": [1.0]}, SPECS)


def test_records_become_columns_without_those_that_cannot() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"amount": "x", "member": 1},
        {"opened": 5},
        {"contry": "DE"},
        {"visits": None},
    ]
    made = columns.of_records([RECORD | change for change in changes], SPECS)

    assert made.places.tolist() == [0, 4]
    assert [(fault.record, fault.field) for fault in made.faults] == [
        (1, "amount"),
        (1, "member"),
        (2, "opened"),
        (3, "contry"),
    ]
    (numbers,) = columns.of_records([{"opened": 5}, {"opened": None}], SPECS).tensors
    np.testing.assert_array_equal(numbers.array, [5.0, np.nan])
