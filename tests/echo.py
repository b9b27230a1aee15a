"""A model that answers its inputs, one for each datatype, behind the real server: `python -m tests.echo`.

It shows the protocol apart from any model, and it can hold a request until another one releases it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from tabserve.inference.errors import InvalidRequest
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context
from tabserve.inference.server import configure_logging, run
from tabserve.inference.settings import ServerSettings, command
from tabserve.inference.tensors import DATATYPES, InferRequest, InferResponse, ModelMetadata, Tensor, TensorSpec

COLUMNS = 2


class Echo:
    """Answers every input as an output of the same name.

    Request parameters: `hold: "x"` waits until a request with `release: "x"` has come. What is held and what was
    given up is told by the parameters of every answer, `held` and `abandoned`.
    """

    ready = True
    headers: Mapping[str, str] = {"tests-echo": "1"}

    def __init__(self, datatypes: Sequence[str]) -> None:
        specs = tuple(TensorSpec(datatype.lower(), datatype, (-1, COLUMNS)) for datatype in datatypes)
        self.metadata = ModelMetadata("echo", ("1", "2"), "tests_echo", inputs=specs, outputs=specs)
        self._gates: dict[str, asyncio.Event] = {}
        self._held = 0
        self._abandoned = 0

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """The inputs; raises InvalidRequest where they are not the declared ones."""
        _check(request.inputs, self.metadata.inputs)
        parameters = request.parameters
        if "release" in parameters:
            self._gate(parameters["release"]).set()
        if "hold" in parameters:
            await self._hold(self._gate(parameters["hold"]))
        return InferResponse(_chosen(request), {"held": self._held, "abandoned": self._abandoned})

    async def predict(self, body: bytes, context: Context) -> bytes:
        """The body."""
        return body

    async def start(self) -> None:
        """Nothing runs in the background."""

    async def stop(self) -> None:
        """Nothing to end."""

    def _gate(self, name: object) -> asyncio.Event:
        return self._gates.setdefault(str(name), asyncio.Event())

    async def _hold(self, gate: asyncio.Event) -> None:
        self._held += 1
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self._abandoned += 1
            raise
        finally:
            self._held -= 1


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
    """Settings of the server, and what it echoes."""

    without: Annotated[str, msgspec.Meta(description="A datatype that is no input.")] = ""


def main(settings: EchoSettings) -> None:
    """Serve until SIGTERM."""
    configure_logging(settings.log_level)
    run(Echo([datatype for datatype in DATATYPES if datatype != settings.without]), settings, Metrics())


if __name__ == "__main__":
    command(EchoSettings, main, __doc__ or "")()
