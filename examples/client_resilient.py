"""A TensorFlow Serving client that does not notice when servers restart, die or move: settings, and no other code.

    python -m examples.client_resilient MODEL HOST:PORT [HOST:PORT ...]

asks a model for its metadata through the published tensorflow-serving-api package. What makes the channel hold out is
`deploy/client/service_config.json` and OPTIONS; both work with TensorFlow Serving too.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

SERVICE_CONFIG = Path(__file__).parent.parent / "deploy" / "client" / "service_config.json"

OPTIONS: Sequence[tuple[str, str | int]] = (
    ("grpc.service_config", SERVICE_CONFIG.read_text()),
    # A request is kept until its answer begins, so that it can be sent again. Larger ones than this are not retried;
    # gRPC's own limit is 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", 8 * 2**20),
    ("grpc.max_receive_message_length", -1),
    # A server whose machine has died is found out within 50 s, also by a client that waits for an answer.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that comes back is found within 5 s; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def connect(addresses: Sequence[str]) -> grpc.Channel:
    """A channel to any number of servers that serve the same models.

    Args:
        addresses: one DNS name with a port, whose addresses are the servers; or several numeric HOST:PORT.
    """
    target = addresses[0] if len(addresses) == 1 else "ipv4:" + ",".join(addresses)
    return grpc.insecure_channel(target, options=OPTIONS)


def main(model: str, *addresses: str) -> int:
    """Print the signatures of a model; returns the exit code."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    with connect(addresses) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        # The configuration says waitForReady: the deadline alone ends the wait for a server, so there must be one.
        reply = stub.GetModelMetadata(request, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    print(f"{model} version {reply.model_spec.version.value}: {', '.join(sorted(signatures.signature_def))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
