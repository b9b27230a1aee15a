"""A model that echoes its inputs, one for each datatype, behind the real server: `python -m tests.echo`.

It shows the protocol without a real model, and it can hold requests until a signal.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from tabserve.inference import logs
from tabserve.inference.bounds import Bounds
from tabserve.inference.deadlines import Deadlines
from tabserve.inference.errors import DeadlineExceeded, InvalidRequest
from tabserve.inference.metrics import Gauge, Metrics
from tabserve.inference.model import PREDICTOR_RELEASE, Context
from tabserve.inference.server import run
from tabserve.inference.settings import ServerSettings, command
from tabserve.inference.tensors import DATATYPES, InferRequest, InferResponse, ModelMetadata, Tensor, TensorSpec

COLUMNS = 2


class Echo:
    """Answers every input as an output of the same name, and tells the id that came with the request.

    A request with the parameter `hold` is held until the process gets SIGUSR1. One with `stall`, the path of a pipe,
    blocks the event loop until the other end of the pipe is closed. Metrics count the requests that have reached the
    model (`echo_started`), came alone (`echo_alone`), are held (`echo_held`) and were abandoned while held
    (`echo_abandoned`).
    """

    ready = True

    def __init__(self, datatypes: Sequence[str], settings: ServerSettings, metrics: Metrics) -> None:
        specs = tuple(TensorSpec(datatype.lower(), datatype, (-1, COLUMNS)) for datatype in datatypes)
        self.metadata = ModelMetadata(
            settings.model_name or "echo", ("1", "2"), "tests_echo", inputs=specs, outputs=specs
        )
        self.bounds = Bounds(settings.max_rows, COLUMNS, len(specs))
        self.headers: Mapping[str, str] = {"tests-echo": "1", PREDICTOR_RELEASE: settings.release}
        self._held: set[asyncio.Future[None]] = set()
        self._deadlines = Deadlines()
        self._started = self._alone = self._abandoned = 0
        metrics.add(
            Gauge("echo_started", "Requests that reached the model", lambda: self._started),
            Gauge("echo_alone", "Requests that came alone", lambda: self._alone),
            Gauge("echo_held", "Requests held", lambda: len(self._held)),
            Gauge("echo_abandoned", "Requests given up while they were held", lambda: self._abandoned),
        )

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Answer with the inputs. Raises InvalidRequest if they are not the declared ones."""
        self._started += 1
        self._alone += context.alone
        context.response_headers["tests-echo-id"] = context.trace["x-request-id"]
        _check(request.inputs, self.metadata.inputs)
        if "hold" in request.parameters:
            await self._hold(context)
        if "stall" in request.parameters:
            Path(str(request.parameters["stall"])).read_bytes()
        return InferResponse(_chosen(request))

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer with the body."""
        return body

    async def start(self) -> None:
        """Let SIGUSR1 release held requests from now on."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._let_go)

    async def stop(self) -> None:
        """Do nothing, because there is nothing to end."""

    def _let_go(self) -> None:
        for held in self._held:
            if not held.done():
                held.set_result(None)

    async def _hold(self, context: Context) -> None:
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.add(held)
        try:
            await self._deadlines.in_time(held, context.deadline)
        except (asyncio.CancelledError, DeadlineExceeded):
            self._abandoned += 1
            raise
        finally:
            self._held.remove(held)


def _check(inputs: Sequence[Tensor], declared: Sequence[TensorSpec]) -> None:
    specs = {spec.name: spec for spec in declared}
    if sorted(tensor.name for tensor in inputs) != sorted(specs):
        raise InvalidRequest(f"inputs: expected {', '.join(specs)}, each once")
    for tensor in inputs:
        if tensor.datatype != specs[tensor.name].datatype or tensor.array.shape[1:] != (COLUMNS,):
            raise InvalidRequest(f"input `{tensor.name}`: expected {specs[tensor.name].datatype} [-1, {COLUMNS}]")


def _chosen(request: InferRequest) -> tuple[Tensor, ...]:
    tensors = {tensor.name: tensor for tensor in request.inputs}
    unknown = [output.name for output in request.outputs if output.name not in tensors]
    if unknown:
        raise InvalidRequest(f"outputs: expected names of {', '.join(tensors)}")
    return tuple(tensors[output.name] for output in request.outputs) or request.inputs


class EchoSettings(ServerSettings, frozen=True, kw_only=True):
    """Settings of the server, and of what it echoes."""

    without: Annotated[str, msgspec.Meta(description="A datatype that is no input.")] = ""


def main(settings: EchoSettings) -> None:
    """Serve until SIGTERM."""
    logs.configure(settings.log_level, settings.log_format, "echo")
    metrics = Metrics()
    datatypes = [datatype for datatype in DATATYPES if datatype != settings.without]
    run(Echo(datatypes, settings, metrics), settings, metrics)


if __name__ == "__main__":
    command(EchoSettings, main, __doc__ or "")()
