"""The server's settings: one frozen value, checked when it is made."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that can be set. Units are in the names."""

    repository: Path
    host: str = "127.0.0.1"
    """Loopback unless told otherwise: exposing a server is a decision."""
    port: int = 8500
    """TensorFlow Serving's gRPC port. 0 takes a free one."""
    metrics_port: int | None = 8002
    """Triton's metrics port, which tools know. 0 takes a free one, None serves no metrics."""
    poll_seconds: float = 1.0
    """How often the folders are looked at, as TensorFlow Serving's --file_system_poll_wait_seconds; 0 is once."""
    model_config_file: Path | None = None
    """TensorFlow Serving's model_config_file: models in several places, instead of a repository."""
    model_config_poll_seconds: float = 0.0
    """How often that file is looked at; 0 is once, as by TensorFlow Serving's default."""
    model_name: str = "default"
    """The name of the model in `model_base_path`; the default is TensorFlow Serving's."""
    model_base_path: str = ""
    """A folder of one model's version folders, instead of a repository."""
    labels_before_versions: bool = False
    """Whether a label may name a version that is not available, as by --allow_version_labels_for_unavailable_models."""
    admin: bool = False
    """Whether whoever reaches the server may change what is served, with HandleReloadConfigRequest."""
    load_threads: int = 2
    """Models that are loaded at once."""
    threads: int = 0
    """Threads within one operator; 0 is one per physical core. TensorFlow's intra-op parallelism."""
    socket: Path | None = None
    """A Unix socket to listen on too."""
    channel_arguments: tuple[tuple[str, int | str], ...] = ()
    """gRPC's own settings for the server, by gRPC's names; they overrule ours."""
    device: str = "auto"
    """auto, cpu or cuda."""
    request_threads: int = 32
    """Requests in work at once; each holds a thread, so this also bounds their memory."""
    max_batch_size: int = 1
    """Rows that wait are joined to batches of at most this many; 1 joins none, as TensorFlow Serving by default.

    That rows do not touch one another was seen on golden rows, which a model may treat otherwise than other rows."""
    batch_timeout_micros: int = 0
    """How long an idle model waits for more rows. 0: only what waits anyway is joined."""
    max_message_bytes: int = 2**31 - 1
    """Largest request. TensorFlow Serving's limit is the int32 maximum."""
    tensor_content: bool = False
    """Answer in tensor_content, as TensorFlow Serving's --enable_serialization_as_tensor_content."""
    lame_duck_seconds: float = 1.0
    """After SIGTERM: how long to go on taking requests while health already says NOT_SERVING."""
    grace_seconds: float = 30.0
    """After that: how long requests under way may take to finish."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the setting's name."""
        for name in ("port", "metrics_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 65535:
                raise ValueError(f"{name} must be between 0 and 65535, not {value}")
        if self.device not in {"auto", "cpu", "cuda"}:
            raise ValueError(f"device must be auto, cpu or cuda, not {self.device!r}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, not {value}")


_LEAST = {
    "request_threads": 1,
    "load_threads": 1,
    "threads": 0,
    "max_batch_size": 1,
    "batch_timeout_micros": 0,
    "poll_seconds": 0,
    "model_config_poll_seconds": 0,
    "lame_duck_seconds": 0,
    "grace_seconds": 0,
}


def parse_channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Read "key=value,key=value" as TensorFlow Serving's --grpc_channel_arguments: an int32 if it looks like one.

    Raises:
        ValueError: a part has no value.
    """
    arguments: list[tuple[str, int | str]] = []
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise ValueError(f"channel arguments are written key=value,key=value, not {part!r}")
        is_int = re.fullmatch(r"[+-]?[0-9]+", value) is not None and -(2**31) <= int(value) < 2**31
        arguments.append((key, int(value) if is_int else value))
    return tuple(arguments)
