"""What both protocols of a client can do, and what they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tabserve.arrays import Array
from tabserve.inference.tensors import ModelMetadata, Tensor


class Options(NamedTuple):
    """Options of a client. host: the Host header, behind a gateway. ca: a file of certificates to trust."""

    host: str | None
    ca: str | None
    timeout: float
    headers: Mapping[str, str]


class Wire(Protocol):
    """Asks one transformer over one protocol; may be used by several threads. Raises ServiceError."""

    def model_name(self) -> str:
        """The name of the model that the transformer serves."""

    def ready(self) -> bool:
        """Whether the transformer answers that it is ready."""

    def metadata(self, model: str) -> ModelMetadata:
        """The model's metadata."""

    def predict(self, model: str, records: Sequence[Any], headers: Mapping[str, str]) -> dict[str, Any] | None:
        """The answer of V1 to records, None over a protocol without V1."""

    def infer(
        self, model: str, tensors: Sequence[Tensor], outputs: Sequence[str], headers: Mapping[str, str]
    ) -> dict[str, Array]:
        """The outputs of V2, and others that the answer has; BYTES as bytes."""

    def close(self) -> None:
        """Close the connections."""
