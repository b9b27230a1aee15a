"""Ask over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from tabserve.arrays import Array
from tabserve.client.address import Address
from tabserve.client.errors import ServiceError
from tabserve.client.wire import Options
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.tensors import DATATYPES, ModelMetadata, Tensor, TensorSpec, binary_elements, elements_binary

_SERVICE = "/inference.GRPCInferenceService/"
_AGAIN_SECONDS = 1.0


class Grpc:
    """Asks over gRPC, with raw tensors. Implements wire.Wire."""

    def __init__(self, address: Address, options: Options) -> None:
        self._address, self._options = address, options
        settings: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1)]
        if options.host:
            settings.append(("grpc.default_authority", options.host))
        if address.secure:
            trusted = Path(options.ca).read_bytes() if options.ca else None
            credentials = grpc.ssl_channel_credentials(trusted)
            self._channel = grpc.secure_channel(address.authority, credentials, settings)
        else:
            self._channel = grpc.insecure_channel(address.authority, settings)

    def model_name(self) -> str:
        """Raise ServiceError, because a server has no list of models over gRPC."""
        raise ServiceError("over gRPC, give the model's name")

    def ready(self) -> bool:
        """Whether the transformer answers that it is ready."""
        try:
            return bool(self._call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse, {}).ready)
        except ServiceError:
            return False

    def metadata(self, model: str) -> ModelMetadata:
        """The model's metadata. Raises ServiceError."""
        found = self._call("ModelMetadata", pb.ModelMetadataRequest(name=model), pb.ModelMetadataResponse, {})
        return ModelMetadata(
            found.name,
            tuple(found.versions),
            found.platform,
            _specs(found.inputs),
            _specs(found.outputs),
            dict(found.properties),
        )

    def predict(self, model: str, records: Sequence[Any], headers: Mapping[str, str]) -> None:
        """None, because V1 is a protocol of REST."""

    def infer(
        self, model: str, tensors: Sequence[Tensor], outputs: Sequence[str], headers: Mapping[str, str]
    ) -> dict[str, Array]:
        """The outputs of V2. Raises ServiceError."""
        request = pb.ModelInferRequest(model_name=model)
        for tensor in tensors:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
            request.raw_input_contents.append(elements_binary(tensor.array))
        for name in outputs:
            request.outputs.add(name=name)
        answer = self._call("ModelInfer", request, pb.ModelInferResponse, headers)
        return {
            output.name: binary_elements(raw, DATATYPES[output.datatype], output.shape)
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _call(self, method: str, request: Any, answer: Any, headers: Mapping[str, str]) -> Any:
        call = self._channel.unary_unary(
            f"{_SERVICE}{method}", request_serializer=_serialized, response_deserializer=answer.FromString
        )
        metadata = [(name.lower(), value) for name, value in {**self._options.headers, **headers}.items()]
        try:
            return call(request, timeout=self._options.timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: Any) -> ServiceError:
        code, trailing = error.code(), dict(error.trailing_metadata() or ())
        if code == grpc.StatusCode.UNAVAILABLE and "tabserve-transformer-release" not in trailing:
            return ServiceError(f"no answer from {self._address.scheme}://{self._address.authority}: {error.details()}")
        later = _AGAIN_SECONDS if code == grpc.StatusCode.UNAVAILABLE else None
        return ServiceError(f"{code.name}: {error.details()}", later)


def _specs(found: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(spec.name, spec.datatype, tuple(spec.shape)) for spec in found)


def _serialized(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content
