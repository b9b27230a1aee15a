"""A model that fails with the requested error, behind the real server: `python -m tests.unit.failing`."""

from __future__ import annotations

from collections.abc import Mapping

from tabserve.inference import errors, logs
from tabserve.inference.bounds import UNBOUNDED
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context
from tabserve.inference.server import run
from tabserve.inference.settings import ServerSettings, command
from tabserve.inference.tensors import InferRequest, InferResponse, ModelMetadata, TensorSpec


class Failing:
    """Raises the error named in its input; any other name is an unexpected failure whose text quotes it."""

    ready = True
    bounds = UNBOUNDED
    headers: Mapping[str, str] = {}
    metadata = ModelMetadata("failing", ("1",), "tests_failing", (TensorSpec("error", "BYTES", (1,)),), ())

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        name = request.inputs[0].array[0].decode()
        error = getattr(errors, name, None)
        raise error(f"told as {name}") if error else LookupError(f"nothing called {name}")

    async def predict(self, body: bytes, context: Context) -> bytes:
        return body

    async def start(self) -> None:
        """Do nothing, because nothing runs in the background."""

    async def stop(self) -> None:
        """Do nothing, because there is nothing to end."""


def main(settings: ServerSettings) -> None:
    logs.configure(settings.log_level, settings.log_format, "failing")
    run(Failing(), settings, Metrics())


if __name__ == "__main__":
    command(ServerSettings, main, __doc__ or "")()
