"""The gRPC messages are those of the .proto file that clients are generated from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.grpc.service import SERVICE
from tests.serving import ROOT

PROTO = "tabserve/inference/grpc/open_inference.proto"


def test_the_messages_are_generated_from_the_proto(tmp_path: Path) -> None:
    """As `make proto` does, in a pool of their own."""
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", PROTO], cwd=ROOT, check=True
    )
    module = PROTO.replace(".proto", "_pb2.py")
    generated = (tmp_path / module).read_text()

    assert (ROOT / module).read_text() == generated.replace("_pool.Default()", "_pool.DescriptorPool()")


def test_the_service_is_the_protocol_s() -> None:
    methods = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods

    assert pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == SERVICE
    assert [method.name for method in methods] == [
        *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
        *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    ]
