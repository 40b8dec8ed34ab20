"""The server's settings: one frozen value, checked when it is made. The command line is made from these very fields."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

MODELS = "What is served"
RUNNING = "How it runs"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting besides its name, type and default."""

    help: str
    """For --help. Units are in the setting's name."""
    panel: str = ""
    """The group of options in --help."""
    least: float | None = None
    """Smaller values are refused."""
    most: float | None = None
    """Larger values are refused."""
    choices: tuple[str, ...] = ()
    """If there are any, other values are refused."""
    metavar: str | None = None
    """What --help shows for the value, where its type says too little."""
    environment: str | None = None
    """The environment variable that gives the value where the command line does not."""


def _setting(default: Any, text: str, panel: str = "", **known: Any) -> Any:  # noqa: ANN401 - as dataclasses.field
    return field(default=default, metadata={"setting": Setting(text, panel, **known)})


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that can be set, in the order of --help. Units are in the names."""

    repository: Path = _setting(
        Path("models"), "Folder of model packages: REPOSITORY/NAME/VERSION.", MODELS, environment="SEGUE_REPOSITORY"
    )
    model_config_file: Path | None = _setting(
        None, "TensorFlow Serving's model_config_file: each model's place, versions and labels.", MODELS
    )
    model_config_poll_seconds: float = _setting(
        0.0, "How often to look whether that file has changed; 0 never.", MODELS, least=0
    )
    model_base_path: str = _setting("", "Folder of one model's versions, to serve that model alone.", MODELS)
    model_name: str = _setting("default", "That model's name.", MODELS)  # the default is TensorFlow Serving's
    poll_seconds: float = _setting(
        1.0,  # as TensorFlow Serving's --file_system_poll_wait_seconds
        "How often to look for new versions; 0 only at the start.",
        MODELS,
        least=0,
    )
    labels_before_versions: bool = _setting(
        False,
        "A new configuration may give an unused label to a version that is not available.",
        MODELS,
    )
    admin: bool = _setting(
        False, "Let whoever reaches the server change what it serves (HandleReloadConfigRequest).", MODELS
    )
    host: str = _setting(
        "127.0.0.1",  # exposing a server is a decision
        "Address to listen on; 0.0.0.0 exposes the server to the network.",
    )
    port: int = _setting(8500, "gRPC port; 0 takes a free one.", least=0, most=65535)
    socket: Path | None = _setting(None, "Unix socket to listen on too.")
    channel_arguments: str = _setting(
        "", "gRPC's own server settings: key=value,key=value; they overrule ours.", metavar="KEY=VALUE,..."
    )
    metrics_port: int = _setting(
        8002,  # Triton's, which tools know
        "Port of /metrics; 0 takes a free one, -1 serves none.",
        least=-1,
        most=65535,
    )
    tensor_content: bool = _setting(False, "Answer in tensor_content.")
    device: str = _setting("auto", "auto, cpu or cuda.", RUNNING, choices=("auto", "cpu", "cuda"))
    threads: int = _setting(0, "Threads within one operator; 0 is one per physical core.", RUNNING, least=0)
    request_threads: int = _setting(32, "Requests in work at once.", RUNNING, least=1)
    max_batch_size: int = _setting(1, "Rows that are run together at most; 1 switches it off.", RUNNING, least=1)
    batch_timeout_micros: int = _setting(0, "How long an idle model waits for more rows.", RUNNING, least=0)
    load_threads: int = _setting(2, "Models loaded at once.", RUNNING, least=1)
    max_message_bytes: int = _setting(
        2**31 - 1,  # TensorFlow Serving's limit
        "Largest request.",
        RUNNING,
        least=1,
        most=2**31 - 1,
    )
    max_streams: int = _setting(
        1000,  # with 4,000 a flood of resets costs other clients requests; with 100 a client's own bursts are refused
        "Calls open at once on one connection.",
        RUNNING,
        least=1,
        most=2**31 - 1,
    )
    max_connections: int = _setting(10_000, "Connections open at once.", RUNNING, least=1, most=2**31 - 1)
    max_connection_age_seconds: float = _setting(
        0.0, "End a connection, calls first, after about that long; 0 never.", RUNNING, least=0, most=1e6
    )
    lame_duck_seconds: float = _setting(1.0, "After SIGTERM: keep answering, NOT_SERVING.", RUNNING, least=0)
    grace_seconds: float = _setting(30.0, "After that: time for requests under way.", RUNNING, least=0)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the setting's name."""
        for name, setting in SETTINGS.items():
            _check(name, getattr(self, name), setting)
        parse_channel_arguments(self.channel_arguments)


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {each.name: each.metadata["setting"] for each in fields(ServerConfig)}
)
"""By the names of ServerConfig's fields, in their order."""


def _check(name: str, value: Any, setting: Setting) -> None:  # noqa: ANN401 - of any setting's type
    if setting.choices and value not in setting.choices:
        raise ValueError(f"{name} must be {', '.join(setting.choices)}, not {value!r}")
    if setting.least is not None and not value >= setting.least:
        raise ValueError(f"{name} must be at least {setting.least:g}, not {value}")
    if setting.most is not None and not value <= setting.most:
        raise ValueError(f"{name} must be at most {setting.most:.0f}, not {value}")


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
