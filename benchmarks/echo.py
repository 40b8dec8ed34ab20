"""A bare gRPC server that answers each request with its own bytes: the floor that any Python server stands on.

    python -m benchmarks.echo threads|asyncio|executor PORT

"executor" is asyncio with the work handed to a thread, as a server must do whose model computes for milliseconds.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]


def handler(echo: Callable[[bytes, Any], Any]) -> grpc.GenericRpcHandler:
    """Predict, answered with the request."""
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Predict": grpc.unary_unary_rpc_method_handler(echo)}
    return grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", methods)


def serve_threads(port: int) -> None:
    """Grpcio's synchronous server, as Segue uses it."""
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[handler(lambda data, _: data)], options=OPTIONS)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def serve_asyncio(port: int, *, executor: bool) -> None:
    """Grpcio's asyncio server."""
    pool = futures.ThreadPoolExecutor(32)

    async def echo(data: bytes, _context: Any) -> bytes:  # noqa: ANN401 - asyncio's context type is another one
        if executor:
            return await asyncio.get_running_loop().run_in_executor(pool, bytes, data)
        return data

    server = grpc.aio.server(handlers=[handler(echo)], options=OPTIONS)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    kind, number = sys.argv[1], int(sys.argv[2])
    if kind == "threads":
        serve_threads(number)
    else:
        asyncio.run(serve_asyncio(number, executor=kind == "executor"))
