"""Constant load through a gateway: every request is counted, with its status and the releases that answered it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import Any

import grpc

from tabserve.inference.grpc import open_inference_pb2 as pb

TIMEOUT_SECONDS = 60.0  # a model may have to be woken up
RELEASES = ("tabserve-transformer-release", "tabserve-predictor-release")


@dataclass(frozen=True)
class Answer:
    """One request: when it began, its protocol, how it ended (a status or an error), and how long it took.

    error: the text of the error if it was not answered. identity: the request's id. record: which one was sent.
    """

    began: float
    protocol: str
    status: str
    seconds: float
    transformer: str = ""
    predictor: str = ""
    error: str = ""
    identity: str = ""
    record: int = 0

    @property
    def good(self) -> bool:
        """Whether the request was answered."""
        return self.status in ("200", "OK")


@dataclass
class Target:
    """A model behind a gateway.

    address: HOST:PORT of the gateway; host: the name clients use. others: more records, sent in turn over REST.
    """

    address: str
    host: str
    model: str
    record: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    others: list[dict[str, Any]] = field(default_factory=list)
    turns: Iterator[int] = field(default_factory=count)

    def rest(self, connection: HTTPConnection) -> Answer:
        """Send one record over V1 REST."""
        began = time.monotonic()
        at = next(self.turns) % (1 + len(self.others))
        body = json.dumps({"instances": [self.others[at - 1] if at else self.record]})
        headers = {"Host": self.host, "Content-Type": "application/json", **self.headers}
        try:
            connection.request("POST", f"/v1/models/{self.model}:predict", body, headers)
            response = connection.getresponse()
            said = response.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            connection.close()
            return Answer(began, "REST", repr(error), time.monotonic() - began)
        transformer, predictor = (response.headers.get(name, "") for name in RELEASES)
        problem = "" if response.status == 200 else said
        status, seconds = str(response.status), time.monotonic() - began
        identity = response.headers.get("x-request-id", "")
        return Answer(began, "REST", status, seconds, transformer, predictor, problem, identity, at)

    def connection(self) -> HTTPConnection:
        """A connection to the gateway."""
        gateway, _, port = self.address.partition(":")
        return HTTPConnection(gateway, int(port), timeout=TIMEOUT_SECONDS)

    def once(self) -> Answer:
        """Send one record over its own connection."""
        with closing(self.connection()) as connection:
            return self.rest(connection)

    def channel(self) -> grpc.Channel:
        """A gRPC channel to the gateway."""
        return grpc.insecure_channel(self.address, options=[("grpc.default_authority", self.host)])

    def grpc(self, channel: grpc.Channel) -> Answer:
        """Send the record over gRPC."""
        began = time.monotonic()
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        metadata = tuple(self.headers.items())
        try:
            _, call = method.with_call(self.message(), timeout=TIMEOUT_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return Answer(began, "gRPC", f"{error.code()} {error.details()}", time.monotonic() - began)
        told = {key: str(value) for key, value in call.trailing_metadata()}
        transformer, predictor = (told.get(name, "") for name in RELEASES)
        return Answer(began, "gRPC", "OK", time.monotonic() - began, transformer, predictor)

    def message(self) -> pb.ModelInferRequest:
        """The record as V2 columns; every field is a number."""
        tensors = [
            pb.ModelInferRequest.InferInputTensor(
                name=name, datatype="FP64", shape=[1], contents=pb.InferTensorContents(fp64_contents=[value])
            )
            for name, value in self.record.items()
        ]
        return pb.ModelInferRequest(model_name=self.model, inputs=tensors)


@dataclass
class Seen:
    """What a load has seen so far. paused: nothing is sent while it is set."""

    answers: list[Answer] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    paused: threading.Event = field(default_factory=threading.Event)

    def failures(self) -> list[Answer]:
        """Requests that were not answered."""
        return [answer for answer in self.answers if not answer.good]

    def mixed(self) -> list[Answer]:
        """Answers that a transformer of one release gave with a predictor of another."""
        return [answer for answer in self.answers if answer.good and answer.transformer != answer.predictor]

    def share(self, release: str) -> int:
        """How many answers came from a release."""
        return sum(answer.good and answer.transformer == release for answer in self.answers)

    def since(self, began: float) -> list[Answer]:
        """The answers to requests that began since then."""
        return [answer for answer in self.answers if answer.began >= began]


@contextmanager
def constant(target: Target, *, rest: int = 2, grpc: int = 0, per_second: float = 20) -> Generator[Seen]:
    """Run REST and gRPC clients, each at a fixed rate, until the block is left.

    The first REST client opens a connection for each request; the others keep theirs.
    """
    seen = Seen()
    workers = [threading.Thread(target=_rest_client, args=(target, seen, per_second, i > 0)) for i in range(rest)]
    workers += [threading.Thread(target=_grpc_client, args=(target, seen, per_second)) for _ in range(grpc)]
    for worker in workers:
        worker.start()
    try:
        yield seen
    finally:
        seen.stopped.set()
        for worker in workers:
            worker.join()


def _rest_client(target: Target, seen: Seen, per_second: float, keep: bool) -> None:
    with closing(target.connection()) as connection:
        _repeat(seen, per_second, lambda: target.rest(connection) if keep else target.once())


def _grpc_client(target: Target, seen: Seen, per_second: float) -> None:
    with target.channel() as channel:
        _repeat(seen, per_second, lambda: target.grpc(channel))


def _repeat(seen: Seen, per_second: float, ask: Callable[[], Answer]) -> None:
    due = time.monotonic()
    while not seen.stopped.wait(max(0.0, due - time.monotonic())):
        if not seen.paused.is_set():
            seen.answers.append(ask())
        due = max(due + 1 / per_second, time.monotonic() - 1)
