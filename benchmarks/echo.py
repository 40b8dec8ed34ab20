"""A bare gRPC server that answers each request with its own bytes: the floor that grpcio's own servers stand on.

    python -m benchmarks.echo threads|asyncio PORT METADATA [BYTES]

METADATA is a file with the answer to GetModelMetadata, which load generators ask for first. With BYTES, only so many of
a request are sent back.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]


def handler(echo: Callable[[bytes, Any], Any], describe: Callable[[bytes, Any], Any]) -> grpc.GenericRpcHandler:
    """Predict, answered with the request, and GetModelMetadata."""
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Predict": grpc.unary_unary_rpc_method_handler(echo),
        "GetModelMetadata": grpc.unary_unary_rpc_method_handler(describe),
    }
    return grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", methods)


def serve_threads(port: int, metadata: bytes, most: int | None) -> None:
    """Grpcio's synchronous server."""
    handlers = [handler(lambda data, _: data[:most], lambda _data, _: metadata)]
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=handlers, options=OPTIONS)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def serve_asyncio(port: int, metadata: bytes, most: int | None) -> None:
    """Grpcio's asyncio server."""

    async def echo(data: bytes, _context: Any) -> bytes:  # noqa: ANN401 - asyncio's context type is another one
        return data[:most]  # which is the same object, uncopied, where nothing is left out

    async def describe(_data: bytes, _context: Any) -> bytes:  # noqa: ANN401 - as above
        return metadata

    server = grpc.aio.server(handlers=[handler(echo, describe)], options=OPTIONS)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    kind, number, file, *bytes_back = sys.argv[1:]
    most = int(bytes_back[0]) if bytes_back else None
    if kind == "threads":
        serve_threads(int(number), Path(file).read_bytes(), most)
    else:
        asyncio.run(serve_asyncio(int(number), Path(file).read_bytes(), most))
