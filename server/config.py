"""The server's settings: one frozen value, checked when it is made."""

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
    """How often the repository is looked at, as TensorFlow Serving's --file_system_poll_wait_seconds."""
    device: str = "auto"
    """auto, cpu or cuda."""
    request_threads: int = 32
    """Requests in work at once; each holds a thread, so this also bounds their memory."""
    max_batch_size: int = 16
    """Rows that wait are joined to batches of at most this many; 1 joins none."""
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
        if self.request_threads < 1:
            raise ValueError(f"request_threads must be at least 1, not {self.request_threads}")
        if self.max_batch_size < 1 or self.batch_timeout_micros < 0:
            raise ValueError("max_batch_size must be at least 1 and batch_timeout_micros at least 0")
        if self.poll_seconds <= 0:
            raise ValueError(f"poll_seconds must be above 0, not {self.poll_seconds}")
        if min(self.lame_duck_seconds, self.grace_seconds) < 0:
            raise ValueError("lame_duck_seconds and grace_seconds cannot be negative")
