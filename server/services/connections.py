"""How the server treats connections: the settings that gRPC's core is given, each with its reason.

The names are those of grpc_types.h and channel_arg_names.h. Whatever --channel-arguments says goes first.
"""

from server.config import ServerConfig, parse_channel_arguments
from server.services.transport import Options

_NEVER = 2**31 - 1  # gRPC's infinity for times in milliseconds


def options(config: ServerConfig) -> Options:
    """What `transport.RpcServer` is given."""
    age = round(config.max_connection_age_seconds * 1000) or _NEVER
    return [
        *parse_channel_arguments(config.channel_arguments),  # of two settings of one name gRPC takes the first
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would each get some of the requests, silently.
        ("grpc.so_reuseport", 0),
        # Handlers of calls that were reset at once pile up. A bound keeps a flood of those from costing other clients
        # their answers; but what a client begins beyond it is refused, so it must be beyond what clients do.
        ("grpc.max_concurrent_streams", config.max_streams),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        # A connection that never says hello holds a file descriptor; gRPC's own patience is 120 s.
        ("grpc.server_handshake_timeout_ms", 20_000),
        # Headers that a client may send: above the first size perhaps refused, above the second certainly.
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
        # A client whose machine has died, or which a firewall has forgotten, is found out within 80 s.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ask the same: gRPC's in Go do so every 10 s at most, others have no limit. Its own bound is 5
        # minutes; who asks more often is sent away ("too_many_pings") at the third time.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 2),
        # Behind a load balancer that counts connections, a new server gets work only when old connections end.
        ("grpc.max_connection_age_ms", min(age, _NEVER)),
        ("grpc.max_connection_age_grace_ms", min(round(config.grace_seconds * 1000), _NEVER)),
    ]
