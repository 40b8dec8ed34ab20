"""Asks a running server for its health: `python -m server.services.probe [HOST:PORT]`, for containers and scripts.

Exit code 0 means SERVING, 1 anything else. For a server with TLS there are --tls-ca, --tls-certificate and --tls-key,
or the variables SEGUE_TLS_CA, SEGUE_TLS_CERTIFICATE and SEGUE_TLS_KEY. Health needs no token.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.services.dial import DialRefused, Keys

_SECONDS = 3.0


def probe(address: str, keys: Keys | None = None) -> str:
    """The server's status by name, or the reason why there is none.

    Raises:
        DialRefused: A file of the keys cannot be read.
    """
    with (keys or Keys()).channel(address) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return name


def main(arguments: Sequence[str]) -> int:
    """Print the status; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.services.probe", description=__doc__)
    parser.add_argument("address", nargs="?", default="localhost:8500", help="HOST:PORT")
    for name in ("ca", "certificate", "key"):
        default = os.environ.get(f"SEGUE_TLS_{name.upper()}")
        parser.add_argument(f"--tls-{name}", type=Path, default=Path(default) if default else None, metavar="FILE")
    given = parser.parse_args(arguments)
    try:
        keys = Keys(ca=given.tls_ca, certificate=given.tls_certificate, key=given.tls_key)
        status = probe(given.address, keys)
    except DialRefused as error:
        status = str(error)
    print(status)
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
