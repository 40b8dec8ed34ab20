"""The server's settings: one frozen value, checked when it is made. The command line is made from these very fields."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

MODELS = "What is served"
REACH = "Where it listens, and who may call"
RUNNING = "How it runs"
SEEN = "What is seen of it"

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fastest")


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
        False,
        "Let whoever may call change what is served (HandleReloadConfigRequest); on loopback, or with a token or "
        "client certificates.",
        MODELS,
    )
    host: str = _setting(
        "127.0.0.1",  # exposing a server is a decision
        "Address to listen on; 0.0.0.0 exposes the server to the network.",
        REACH,
    )
    port: int = _setting(8500, "gRPC port; 0 takes a free one.", REACH, least=0, most=65535)
    socket: Path | None = _setting(None, "Unix socket to listen on too, for this user only, without TLS.", REACH)
    tls_certificate: Path | None = _setting(
        None, "PEM file of the server's certificate, then its authorities'; read again when it changes.", REACH
    )
    tls_key: Path | None = _setting(None, "PEM file of its private key.", REACH)
    tls_client_ca: Path | None = _setting(
        None, "PEM file of authorities: only clients with a certificate of theirs may call (mutual TLS).", REACH
    )
    ssl_config_file: Path | None = _setting(
        None, "TensorFlow Serving's ssl_config_file, instead of these three.", REACH
    )
    token_file: Path | None = _setting(
        None, "Bearer tokens, one a line; calls but health's need one. Read again when it changes.", REACH
    )
    allow_plaintext_token: bool = _setting(
        False, "Take tokens without TLS beyond loopback: for a proxy that ends TLS.", REACH
    )
    channel_arguments: str = _setting(
        "", "gRPC's own server settings: key=value,key=value; they overrule ours.", REACH, metavar="KEY=VALUE,..."
    )
    tensor_content: bool = _setting(False, "Answer in tensor_content.", RUNNING)
    backends: str = _setting(
        "auto",
        "Backends that may answer, the first one from the start: auto is ONNX Runtime and whatever else is installed; "
        "or a list, such as onnxruntime,openvino,torch.",
        RUNNING,
        metavar="NAMES",
        environment="SEGUE_BACKENDS",
    )
    precision: str = _setting(
        "fp32",
        "What may be computed in: fp32 alone; tf32 (on a GPU), bf16 or fp16 too; or fastest for all; each has to pass "
        "its own proof. Another for some models: fp32,NAME=bf16.",
        RUNNING,
        metavar="WORDS",
    )
    objective: str = _setting(
        "mean",
        "What the choice between backends makes least: mean, p50 or p95 of a batch's time; or most: throughput.",
        RUNNING,
        choices=("mean", "p50", "p95", "throughput"),
    )
    state_folder: Path = _setting(
        Path("~/.local/state/segue"),
        "Folder for what was learnt of backends and pinned, by port, so that it survives a restart; '' keeps nothing.",
        RUNNING,
        environment="SEGUE_STATE",
    )
    cache_folder: Path = _setting(
        Path("~/.cache/segue"),
        "Folder for what backends compile; it may be deleted at any time.",
        RUNNING,
        environment="SEGUE_CACHE",
    )
    device: str = _setting("auto", "auto, cpu or cuda.", RUNNING, choices=("auto", "cpu", "cuda"))
    threads: int = _setting(0, "Threads within one operator; 0 is one per physical core.", RUNNING, least=0)
    request_threads: int = _setting(32, "Requests in work at once.", RUNNING, least=1)
    max_waiting_requests: int = _setting(
        256, "Requests of one model that may wait for a thread; more are refused.", RUNNING, least=1
    )
    max_bytes_in_flight: int = _setting(
        2**31, "Memory that requests in flight may take together; more are refused.", RUNNING, least=1
    )
    max_batch_size: int | None = _setting(
        None,
        "Rows of waiting requests that are run together at most, by default 16; 1 switches it off.",
        RUNNING,
        least=1,
    )
    batch_timeout_micros: int | None = _setting(
        None, "How long an idle model waits for more rows, by default not at all.", RUNNING, least=0
    )
    batching_parameters_file: Path | None = _setting(
        None, "TensorFlow Serving's batching_parameters_file; the two options above overrule it.", RUNNING
    )
    per_model_batching: bool = _setting(False, "Heed the batching_params.pbtxt that models were saved with.", RUNNING)
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
    metrics_port: int = _setting(
        8002,  # Triton's, which tools know
        "Port of /metrics; 0 takes a free one, -1 serves none.",
        SEEN,
        least=-1,
        most=65535,
    )
    metrics_host: str = _setting(
        "", "Address of the metrics and the status page, which ask nobody for a token; '' is that of --host.", SEEN
    )
    monitoring_config_file: Path | None = _setting(
        None, "TensorFlow Serving's monitoring_config_file: a further path of the metrics.", SEEN
    )
    log_format: str = _setting(
        "console", "console or json.", SEEN, choices=("console", "json"), environment="SEGUE_LOG_FORMAT"
    )
    log_level: str = _setting(
        "info",
        "debug, info, warning or error.",
        SEEN,
        choices=("debug", "info", "warning", "error"),
        environment="SEGUE_LOG_LEVEL",
    )
    log_requests: str = _setting(
        "off", "A line for requests: off, errors or all.", SEEN, choices=("off", "errors", "all")
    )
    otlp_endpoint: str = _setting(
        "",
        "Send traces there: http(s)://HOST:PORT of a collector that takes OTLP over gRPC.",
        SEEN,
        metavar="URL",
        environment="OTEL_EXPORTER_OTLP_ENDPOINT",
    )

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the setting's name."""
        for name, setting in SETTINGS.items():
            _check(name, getattr(self, name), setting)
        parse_channel_arguments(self.channel_arguments)
        parse_precision(self.precision)
        if self.otlp_endpoint and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise ValueError(f"otlp_endpoint must begin with http:// or https://, not {self.otlp_endpoint!r}")
        self._check_tls()

    def _check_tls(self) -> None:
        """Half a set of files is a mistake that must not end as a server without TLS."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: one of them is missing")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        if self.ssl_config_file is not None and self.tls_certificate is not None:
            raise ValueError("ssl_config_file and tls_certificate say the same thing: give one of them")


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {each.name: each.metadata["setting"] for each in fields(ServerConfig)}
)
"""By the names of ServerConfig's fields, in their order."""


def _check(name: str, value: Any, setting: Setting) -> None:  # noqa: ANN401 - of any setting's type
    if value is None:
        return  # not set, and free not to be
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


def parse_precision(text: str) -> dict[str, str]:
    """Read "bf16" or "fp32,NAME=bf16": the word for each model that is named, under "" that for all others.

    Raises:
        ValueError: a word is unknown, or a model has two.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, word = part.strip().rpartition("=")
        if word not in PRECISIONS or name in found or bool(name) != bool(equals):
            known = ", ".join(PRECISIONS)
            raise ValueError(f"precision must be one of {known}, and NAME= with one for some models, not {text!r}")
        found[name] = word
    return {"": PRECISIONS[0], **found}
