"""Ask over REST, on kept connections."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TypeVar

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.client.address import Address
from tabserve.client.errors import ServiceError
from tabserve.client.wire import Options
from tabserve.inference.tensors import DATATYPES, ModelMetadata, Tensor, binary_elements, elements_binary

_T = TypeVar("_T")
_LENGTH = "inference-header-content-length"
_JSON = {"content-type": "application/json"}
_BINARY = {"content-type": "application/octet-stream"}


class _Output(msgspec.Struct):
    """An output of V2, whose elements are in `data` or follow the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: list[Any] = []


class Outputs(msgspec.Struct):
    """V2's answer, or the JSON before the binary data in it."""

    outputs: list[_Output]


class _Listed(msgspec.Struct):
    models: list[str]


class Rest:
    """Asks over REST: records by V1, columns by V2 with binary tensors. Implements wire.Wire."""

    def __init__(self, address: Address, options: Options) -> None:
        self._address, self._options = address, options
        self._headers = {
            **options.headers,
            "x-request-timeout-ms": str(round(1000 * options.timeout)),
            **({"host": options.host} if options.host else {}),
        }
        self._tls = ssl.create_default_context(cafile=options.ca) if address.secure else None
        self._idle: deque[HTTPConnection] = deque()

    def model_name(self) -> str:
        """The name of the model that the transformer serves. Raises ServiceError."""
        return self._decoded(self._get("/v1/models"), _Listed).models[0]

    def ready(self) -> bool:
        """Whether the transformer answers that it is ready."""
        try:
            return bool(self.get("/v2/health/ready").get("ready"))
        except ServiceError:
            return False

    def get(self, path: str) -> dict[str, Any]:
        """The JSON answer to a GET of a path. Raises ServiceError."""
        return self._decoded(self._get(path), dict[str, Any])

    def metadata(self, model: str) -> ModelMetadata:
        """The model's metadata. Raises ServiceError."""
        return self._decoded(self._get(f"/v2/models/{model}"), ModelMetadata)

    def predict(self, model: str, records: Sequence[Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """The answer of V1. Raises ServiceError."""
        body = msgspec.json.encode({"instances": records})
        answer, _ = self._exchange("POST", f"/v1/models/{model}:predict", body, {**_JSON, **headers})
        return self._decoded(answer, dict[str, Any])

    def infer(
        self, model: str, tensors: Sequence[Tensor], outputs: Sequence[str], headers: Mapping[str, str]
    ) -> dict[str, Array]:
        """The outputs of V2, as binary tensors. Raises ServiceError."""
        contents = [elements_binary(tensor.array) for tensor in tensors]
        head = msgspec.json.encode(
            {
                "inputs": [
                    {
                        "name": tensor.name,
                        "datatype": tensor.datatype,
                        "shape": tensor.array.shape,
                        "parameters": {"binary_data_size": len(content)},
                    }
                    for tensor, content in zip(tensors, contents, strict=True)
                ],
                "outputs": [{"name": name} for name in outputs],
                "parameters": {"binary_data_output": True},
            }
        )
        sent = {**_BINARY, _LENGTH: str(len(head)), **headers}
        body, size = self._exchange("POST", f"/v2/models/{model}/infer", b"".join([head, *contents]), sent)
        return self._arrays(body, size)

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().close()

    def _arrays(self, body: bytes, size: int) -> dict[str, Array]:
        return arrays(self._decoded(body[:size], Outputs), body[size:])

    def _get(self, path: str) -> bytes:
        return self._exchange("GET", path, None, {})[0]

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[bytes, int]:
        """An answer's body, and the length of its JSON. Raises ServiceError for an answer that is an error, or none."""
        given = method, self._address.prefix + path, body, {**self._headers, **headers}
        try:
            connection = self._idle.pop() if self._idle else self._open()
            kept = connection.sock is not None
            try:
                answer, content = _ask(connection, *given)
            except ConnectionError:  # a server may close a kept connection while it is idle
                connection.close()
                if not kept:
                    raise
                answer, content = _ask(connection, *given)
        except (OSError, HTTPException) as error:
            told = str(error) or type(error).__name__
            raise ServiceError(f"no answer from {self._address.scheme}://{self._address.authority}: {told}") from None
        self._idle.append(connection)
        if answer.status != 200:
            raise _refusal(answer, content)
        return content, int(answer.getheader(_LENGTH, len(content)))

    def _open(self) -> HTTPConnection:
        host, port, timeout = self._address.host, self._address.port, self._options.timeout
        if self._tls is None:
            return HTTPConnection(host, port, timeout=timeout)
        return HTTPSConnection(host, port, timeout=timeout, context=self._tls)

    def _decoded(self, body: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ServiceError(f"expected a transformer's answer from {self._address.authority}, got another") from None


def arrays(answer: Outputs, binary: bytes) -> dict[str, Array]:
    """The outputs of V2's answer by name, BYTES as they came. Raises KeyError, TypeError or ValueError if it is none.

    binary: what follows the JSON.
    """
    made, at = {}, 0
    for output in answer.outputs:
        length, dtype = output.parameters.get("binary_data_size"), DATATYPES[output.datatype]
        if length is None:  # what was asked for as JSON, or not by name, but by `on_error`
            made[output.name] = np.array(output.data, dtype).reshape(output.shape)
            continue
        made[output.name] = binary_elements(binary[at : at + length], dtype, output.shape)
        at += length
    return made


def _ask(
    connection: HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[HTTPResponse, bytes]:
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer, answer.read()
    except (OSError, HTTPException):
        connection.close()
        raise


def _refusal(answer: HTTPResponse, content: bytes) -> ServiceError:
    try:
        told = msgspec.json.decode(content, type=dict[str, Any]).get("error", answer.reason)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = answer.reason
    after = answer.getheader("retry-after", "")
    return ServiceError(f"{answer.status}: {told}", float(after) if answer.status == 503 and after.isdigit() else None)
