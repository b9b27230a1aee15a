"""The floor of gRPC on grpc.aio: takes the message as bytes, always answers the same bytes, does nothing else."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc


async def main(port: str, answer: str) -> None:
    """Serve the bytes of the file `answer` on 127.0.0.1:port."""
    message = Path(answer).read_bytes()

    async def infer(request: bytes, context: Any) -> bytes:
        return message

    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
