"""TLS and mutual TLS over real sockets: who is answered and who is not, and certificates that change under load."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import grpc
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.tls import HANDSHAKE_SECONDS
from tests.certificates import Authority, Pair
from tests.faults import wire
from tests.faults.load import Tally, clients
from tests.serving import Service, start

pytestmark = pytest.mark.alone

READY = "/inference.GRPCInferenceService/ServerReady"
OWN = (("grpc.use_local_subchannel_pool", 1),)  # else channels share a connection, and its handshake


def context(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    """A client's TLS."""
    made = ssl.create_default_context(cafile=authority.file)
    if pair is not None:
        made.load_cert_chain(pair.cert, pair.key)
    return made


def get(service: Service, client: ssl.SSLContext, path: str = "/v2/health/ready") -> int:
    """The status of a GET on a connection of its own."""
    connection = http.client.HTTPSConnection("127.0.0.1", service.http_port, context=client, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def channel(service: Service, authority: Authority, pair: Pair | None = None) -> grpc.Channel:
    """A gRPC channel with TLS."""
    own = (pair.key.read_bytes(), pair.cert.read_bytes()) if pair else (None, None)
    return grpc.secure_channel(service.grpc, grpc.ssl_channel_credentials(authority.file.read_bytes(), *own), OWN)


def is_ready(opened: grpc.Channel, seconds: float = 30.0) -> bool:
    """What the server answers over gRPC. Raises grpc.RpcError."""
    call = opened.unary_unary(READY)
    return bool(pb.ServerReadyResponse.FromString(call(b"", timeout=seconds, wait_for_ready=False)).ready)


def answers_grpc(service: Service, authority: Authority, pair: Pair | None = None) -> bool:
    """Whether a client is answered over gRPC."""
    with channel(service, authority, pair) as opened:
        try:
            return is_ready(opened)
        except grpc.RpcError:
            return False


@contextmanager
def secured(log: Path, pair: Pair, *options: str, module: str = "tests.echo") -> Generator[Service]:
    """A service with TLS that is ready; the admin port is plain."""
    files = (f"--tls_cert={pair.cert}", f"--tls_key={pair.key}", "--log_format=json")
    service = start(module, *files, *options, log=log)
    try:
        wait_ready(service)
        yield service
    finally:
        service.kill()


def wait_ready(service: Service) -> None:
    service.wait_for(lambda: service.get("/v2/health/ready", service.admin_port)[0] == 200, "ready")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def mutual(authority: Authority, logs: Path) -> Generator[Service]:
    """An echo that answers clients with a certificate of the authority."""
    with secured(logs / "mutual.log", authority.issue("server"), f"--tls_client_ca={authority.file}") as service:
        yield service


def test_a_client_with_a_certificate_is_answered(mutual: Service, authority: Authority) -> None:
    pair = authority.issue("client")

    assert get(mutual, context(authority, pair)) == 200
    assert answers_grpc(mutual, authority, pair)


@pytest.mark.parametrize("kind", ["none", "of another authority", "expired"])
def test_a_client_without_a_good_certificate_is_not(
    mutual: Service, authority: Authority, other: Authority, kind: str
) -> None:
    pairs = {
        "none": None,
        "of another authority": other.issue("client"),
        "expired": authority.issue("late", expired=True),
    }
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(mutual, context(authority, pairs[kind]))
    assert not answers_grpc(mutual, authority, pairs[kind])
    assert get(mutual, context(authority, authority.issue("client"))) == 200


def test_a_server_of_another_authority_is_not_believed(mutual: Service, authority: Authority, other: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        get(mutual, context(other, authority.issue("client")))


def test_plain_text_is_closed_and_the_admin_port_is_plain(mutual: Service) -> None:
    assert mutual.status("/v2/health/ready") == 0
    with grpc.insecure_channel(mutual.grpc, OWN) as opened, pytest.raises(grpc.RpcError):
        is_ready(opened)
    assert mutual.get("/v2/health/ready", mutual.admin_port)[0] == 200
    assert "Traceback" not in mutual.text()


def test_clients_that_do_not_shake_hands_make_room_for_others(logs: Path, authority: Authority) -> None:
    with secured(logs / "silent.log", authority.issue("crowded"), "--max_connections=8") as service:
        with ExitStack() as stack:
            opened = [stack.enter_context(wire.connection(service.http_port)) for _ in range(40)]
            assert get(service, context(authority)) == 200
            assert wire.rest(opened[0]) == b""
        assert "connections_full" in [line["event"] for line in service.told()]


def test_idle_clients_are_told_and_closed_when_there_are_many_and_when_it_stops(
    logs: Path, authority: Authority
) -> None:
    options = ("--max_connections=8", "--drain_seconds=0", "--grpc_port=0")
    with secured(logs / "idle.log", authority.issue("idle"), *options) as service, ExitStack() as stack:
        opened = [stack.enter_context(shaken(service, context(authority))) for _ in range(12)]
        for each in opened[:4]:
            assert each.recv(100) == b"", "the server says goodbye, or this is an ssl.SSLEOFError"
        for each in opened[4:]:
            each.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert each.recv(12) == b"HTTP/1.1 200"
        files = Path(f"/proc/{service.process.pid}/fd")
        service.wait_for(lambda: sockets(files) <= 8 + LISTENING, "rid of the others' connections")
        assert service.terminate() == 0
        assert "connections_cut" not in service.text()


LISTENING = 6
"""Sockets of a service without gRPC that are no client's connection, at most."""


def sockets(files: Path) -> int:
    """How many sockets a process has open."""
    found = 0
    for file in files.iterdir():
        with suppress(OSError):
            found += os.readlink(file).startswith("socket:")
    return found


@contextmanager
def shaken(service: Service, client: ssl.SSLContext) -> Generator[ssl.SSLSocket]:
    """A connection whose client has shaken hands."""
    with (
        socket.create_connection(("127.0.0.1", service.http_port), timeout=30) as plain,
        client.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as opened,
    ):
        yield opened


@pytest.mark.long
def test_a_handshake_has_an_end(logs: Path, authority: Authority) -> None:
    with secured(logs / "slow.log", authority.issue("slow")) as service, ExitStack() as stack:
        ports = (service.http_port, service.grpc_port)
        opened = [stack.enter_context(wire.connection(port)) for port in ports]
        started = time.monotonic()
        assert [wire.rest(each) for each in opened] == [b"", b""]
        assert time.monotonic() - started < HANDSHAKE_SECONDS + 20
        told = [line["event"] for line in service.told()]
        assert told.count("handshake_failed") == 1


def ask_rest(tally: Tally, service: Service, client: ssl.SSLContext) -> None:
    """Ask ten times on each connection."""
    while not tally.stop.is_set():
        connection = http.client.HTTPSConnection("127.0.0.1", service.http_port, context=client, timeout=30)
        try:
            for _ in range(10):
                connection.request("GET", "/v2/health/ready")
                response = connection.getresponse()
                response.read()
                tally.add(str(response.status), 0.0)
        except OSError as error:
            tally.add(repr(error), 0.0)
        finally:
            connection.close()


def ask_grpc(tally: Tally, service: Service, authority: Authority) -> None:
    """Ask ten times on each channel."""
    while not tally.stop.is_set():
        with channel(service, authority) as opened:
            for _ in range(10):
                try:
                    is_ready(opened)
                    tally.add("OK", 0.0)
                except grpc.RpcError as error:
                    tally.add(f"{error.code()}", 0.0)


def shown(service: Service, authority: Authority, port: int) -> bytes:
    """The certificate that a server shows now."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context(authority).wrap_socket(plain, server_hostname="localhost") as opened,
    ):
        return opened.getpeercert(binary_form=True) or b""


def test_a_certificate_that_is_replaced_under_load_costs_no_request(logs: Path, authority: Authority) -> None:
    pair, tally = authority.issue("rotated"), Tally()
    with secured(logs / "rotated.log", pair) as service:
        ports = (service.http_port, service.grpc_port)
        rest, rpc = partial(ask_rest, tally, service, context(authority)), partial(ask_grpc, tally, service, authority)
        with clients(tally, rest, rest, rpc):
            for _ in range(3):
                before = [shown(service, authority, port) for port in ports]
                authority.issue("rotated")
                for port, old in zip(ports, before, strict=True):
                    service.wait_for(lambda port=port, old=old: shown(service, authority, port) != old, "rotated")  # type: ignore[misc]
            pair.cert.write_text("no certificate")
            goal = tally.answered + 100
            service.wait_for(lambda: tally.answered >= goal, "answering with the former certificate")
        assert tally.counts.keys() == {"200", "OK"}, tally.counts
        events = [line["event"] for line in service.told()]
        assert {"certificate_read", "certificate_unfit"} <= {*events}


def test_transformer_and_predictor_speak_mutual_tls(quick_bundle: Path, tmp_path: Path) -> None:
    authority, model = Authority(tmp_path), f"--model_dir={quick_bundle}"
    served, called = authority.issue("predictor"), authority.issue("transformer")
    trusted = f"--tls_client_ca={authority.file}"
    with secured(tmp_path / "predictor.log", served, model, trusted, module="tabserve_predictor") as predictor:
        options = (model, f"--predictor_host=127.0.0.1:{predictor.http_port}")
        secure = (*options, f"--predictor_ca={authority.file}")
        with secured(tmp_path / "log", called, *secure, module="tabserve_transformer") as transformer:
            for _ in range(2):
                assert get(transformer, context(authority)) == 200
                for name in ("predictor", "transformer"):
                    authority.issue(name)
                wait_ready(transformer)
        # Without TLS, and with TLS but without a certificate, the predictor does not answer a transformer.
        for some in (options, secure):
            service = start("tabserve_transformer", *some, "--log_format=json", log=tmp_path / f"{len(some)}.log")
            try:
                service.wait_for(lambda service=service: "predictor_gone" in service.text(), "alone")  # type: ignore[misc]
                assert service.status("/v2/health/ready") == 503
            finally:
                service.kill()
