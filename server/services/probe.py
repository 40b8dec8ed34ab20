"""Asks a running server for its health: `python -m server.services.probe [HOST:PORT]`, for containers and scripts.

Exit code 0 means SERVING, 1 anything else.
"""

import sys
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 3.0


def probe(address: str) -> str:
    """The server's status by name, or the reason why there is none."""
    with grpc.insecure_channel(address) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return name


def main(arguments: Sequence[str]) -> int:
    """Print the status; returns the exit code."""
    status = probe(arguments[0] if arguments else "localhost:8500")
    print(status)
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
