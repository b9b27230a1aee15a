"""Server reflection, by which clients such as grpcurl read the services' definitions from the server.

Source: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md.
"""

from __future__ import annotations

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tabserve.inference.grpc import open_inference_pb2 as pb

_VERSIONS = ("v1", "v1alpha")
"""Both have the same messages; clients ask for either."""


def handlers(service: str) -> list[grpc.GenericRpcHandler]:
    """Handlers that tell of the service, of health, and of reflection itself."""
    pool = DescriptorPool()
    for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(file.serialized_pb)
    names = (service, health.SERVICE_NAME, reflection.SERVICE_NAME)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names, pool).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(
            f"grpc.reflection.{version}.ServerReflection", {"ServerReflectionInfo": handler}
        )
        for version in _VERSIONS
    ]
