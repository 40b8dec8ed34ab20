"""TensorFlow Serving's flags, and what becomes of each here. Pure: a command line in, a command line of ours out.

Nothing that an existing start script says is dropped in silence: a flag is mapped, or its effect is here anyway, or a
warning names it and what to do instead. One flag stops the server, because ignoring it would expose what it protects.
The names and defaults are those of TensorFlow Serving 2.21's main.cc.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath


class FlagError(ValueError):
    """The command line cannot be followed; the text names the flag."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of TensorFlow Serving."""

    name: str
    option: str = ""
    """Our option that does the same; empty if there is none."""
    when_false: str = ""
    """Our option, with its value, for a switch that must be turned off here by more than leaving it out."""
    instead: str = ""
    """What to do instead, or why there is nothing to do: for the warning and the docs."""
    is_switch: bool = False
    """True or false, so that the value may be left out."""
    same: frozenset[str] = frozenset()
    """Values that ask for what is done here anyway, so that no warning is due."""
    refused: bool = False
    """Values other than `same` stop the server."""


def _same(*values: str) -> frozenset[str]:
    return frozenset(values)


_OFF = _same("false")
_ON = _same("true")
_NO_REST = "there is no REST API here; clients use gRPC"
_AGAIN = "a version that did not load is tried again as soon as its files change"
_CONVERTED = "decided when the model is converted: see convert-and-deploy convert --help"
_NO_TENSORFLOW = "there is no TensorFlow in this server for it to act on"

FLAGS: tuple[Flag, ...] = (
    Flag("port", "--port"),
    Flag("grpc_socket_path", "--socket"),
    Flag("grpc_max_threads", "--request-threads"),
    Flag("grpc_channel_arguments", "--channel-arguments"),
    Flag(
        "rest_api_port",
        instead=_NO_REST + "; with --monitoring_config_file it is where the metrics are",
        same=_same("0"),
    ),
    Flag("rest_api_num_threads", instead=_NO_REST),
    Flag("rest_api_timeout_in_ms", instead=_NO_REST),
    Flag("rest_api_enable_cors_support", instead=_NO_REST, is_switch=True, same=_OFF),
    Flag("model_name", "--model-name"),
    Flag("model_base_path", "--model-base-path"),
    Flag("model_config_file", "--model-config-file"),
    Flag("model_config_file_poll_wait_seconds", "--model-config-poll-seconds"),
    Flag("file_system_poll_wait_seconds", "--poll-seconds"),
    Flag("allow_version_labels_for_unavailable_models", "--labels-before-versions", is_switch=True),
    Flag("num_load_threads", "--load-threads", instead="0, one after the other, becomes 1"),
    Flag("num_unload_threads", instead="unloading shares the threads of --load-threads"),
    Flag("max_num_load_retries", instead=_AGAIN),
    Flag("load_retry_interval_micros", instead=_AGAIN),
    Flag("enable_serialization_as_tensor_content", "--tensor-content", is_switch=True),
    Flag("tensorflow_intra_op_parallelism", "--threads"),
    Flag("tensorflow_session_parallelism", "--threads"),
    Flag(
        "tensorflow_inter_op_parallelism", instead="operators run one after the other; requests run beside each other"
    ),
    Flag("tensorflow_session_config_file", instead="use --threads; " + _NO_TENSORFLOW, same=_same("")),
    Flag(
        "enable_batching",
        when_false="--max-batch-size=1",
        instead="waiting requests are joined anyway, where the model was proved to keep rows apart",
        is_switch=True,
        same=_ON,
    ),
    Flag("batching_parameters_file", "--batching-parameters-file"),
    Flag("enable_per_model_batching_parameters", "--per-model-batching", is_switch=True),
    Flag("monitoring_config_file", "--monitoring-config-file"),
    Flag(
        "enable_model_warmup",
        instead="every version answers its golden inputs before it serves; that cannot be turned off",
        is_switch=True,
        same=_ON,
    ),
    Flag("num_request_iterations_for_warmup", instead="the golden inputs are answered once", same=_same("0", "1")),
    Flag(
        "per_process_gpu_memory_fraction",
        instead="GPU memory is taken as it is needed; give the server a GPU (or a slice) of its own",
        same=_same("0", "0.0"),
    ),
    Flag("enable_grpc_healthcheck_service", instead="health is always there", is_switch=True, same=_ON),
    Flag("version", "--version", is_switch=True),
    Flag("ssl_config_file", "--ssl-config-file"),
    Flag(
        "use_alts_credentials",
        instead="this server has no ALTS: let a proxy end it, and take the flag away",
        is_switch=True,
        same=_OFF,
        refused=True,
    ),
    Flag("saved_model_tags", instead=_CONVERTED, same=_same("serve")),
    Flag("prefer_tflite_model", instead=_CONVERTED, is_switch=True, same=_OFF),
    Flag("mixed_precision", instead=_CONVERTED, same=_same("")),
    Flag("platform_config_file", instead=_NO_TENSORFLOW, same=_same("")),
    Flag("flush_filesystem_caches", instead="the operating system decides about its caches", is_switch=True),
    Flag("remove_unused_fields_from_bundle_metagraph", instead=_NO_TENSORFLOW, is_switch=True),
    Flag("num_tflite_pools", instead=_NO_TENSORFLOW),
    Flag("num_tflite_interpreters_per_pool", instead=_NO_TENSORFLOW),
    Flag(
        "enable_signature_method_name_check",
        instead="Classify and Regress never check the signature's method name",
        is_switch=True,
        same=_OFF,
    ),
    Flag("xla_cpu_compilation_enabled", instead=_NO_TENSORFLOW, is_switch=True, same=_OFF),
    Flag("xla_gpu_compilation_enabled", instead=_NO_TENSORFLOW, is_switch=True, same=_OFF),
    Flag("enable_profiler", instead="there is no profiler service", is_switch=True, same=_OFF),
    Flag("thread_pool_factory_config_file", instead="use --threads; " + _NO_TENSORFLOW, same=_same("")),
    Flag("skip_initialize_tpu", instead=_NO_TENSORFLOW, is_switch=True),
)

_BY_NAME: Mapping[str, Flag] = {flag.name: flag for flag in FLAGS}
# Spelt alike here, so that they do not show that a script was written for TensorFlow Serving.
_SHARED = frozenset({"port", "version"})
_SWITCH_VALUES: Mapping[str, str] = {"true": "true", "1": "true", "false": "false", "0": "false"}

# The defaults of TensorFlow Serving's image, where the variables are always set.
_IMAGE_NAME = "model"
_IMAGE_BASE_PATH = "/models"


@dataclass(frozen=True, slots=True)
class Translation:
    """Our command line, and what the operator must read."""

    arguments: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Reading:
    """What a command line says: ours as it is, theirs by name, the last one counting."""

    ours: list[str] = field(default_factory=list)
    theirs: dict[str, str] = field(default_factory=dict)


def translate(arguments: Sequence[str], environment: Mapping[str, str]) -> Translation:
    """Turn a command line that may have TensorFlow Serving's flags into one of ours.

    Args:
        arguments: without the program's name. A flag is written --flag=value, --flag value, or --flag for true.
        environment: MODEL_NAME and MODEL_BASE_PATH are what they are in TensorFlow Serving's image.

    Raises:
        FlagError: a flag has no value, or one that it cannot have, or must not be ignored.
    """
    reading = _read(arguments)
    warnings = list(_from_environment(reading, environment))
    if _has(reading.ours, "--repository") and (chosen := _chosen(reading)):
        warnings.append(f"--repository has no effect, because {chosen} says what is served")
    if reading.theirs.get("batching_parameters_file") and reading.theirs.get("enable_batching") != "true":
        raise FlagError("--batching_parameters_file is set without setting --enable_batching to true")
    result = list(reading.ours)
    result += _metrics_port(reading)
    for name, value in reading.theirs.items():
        flag = _BY_NAME[name]
        if flag.option:
            result += _option(flag, value)
        elif flag.when_false and value == "false":
            result.append(flag.when_false)
        elif value not in flag.same:
            if flag.refused:
                raise FlagError(f"--{name} cannot be followed: {flag.instead}")
            warnings.append(f"--{name} has no effect: {flag.instead}")
    if reading.theirs.keys() - _SHARED and not _has(reading.ours, "--host"):
        warnings.append(
            "listening on 127.0.0.1 only, where TensorFlow Serving listens on every address: add --host 0.0.0.0 to be "
            "reached from elsewhere"
        )
    return Translation(tuple(result), tuple(warnings))


def table() -> str:
    """The flags as a table in Markdown, for the documentation."""
    rows = ["| TensorFlow Serving's flag | here |", "|---|---|"]
    for flag in FLAGS:
        if flag.refused:
            words = ["refused"]
        else:
            words = [f"`{flag.option}`"] if flag.option else ["warning"]
            if flag.when_false:
                words = [f"if it is false `{flag.when_false}`"]
        if flag.instead:
            words.append(flag.instead)
        rows.append(f"| `--{flag.name}` | {': '.join(words)} |")
    return "\n".join(rows) + "\n"


def _read(arguments: Sequence[str]) -> _Reading:
    reading = _Reading()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        flag = _BY_NAME.get(name) if argument.startswith("--") else None
        if flag is None or (name in _SHARED and not (flag.is_switch and equals)):
            reading.ours.append(argument)
        elif equals:
            reading.theirs[name] = _checked(flag, value)
        elif flag.is_switch:
            follows = bool(rest) and rest[0].lower() in _SWITCH_VALUES
            reading.theirs[name] = _checked(flag, rest.pop(0) if follows else "true")
        elif rest:
            reading.theirs[name] = rest.pop(0)
        else:
            raise FlagError(f"--{name} needs a value")
    return reading


def _metrics_port(reading: _Reading) -> list[str]:
    """TensorFlow Serving's metrics are on the REST port: whoever reads them there finds them there."""
    port = reading.theirs.get("rest_api_port", "0")
    if port == "0" or not reading.theirs.get("monitoring_config_file") or _has(reading.ours, "--metrics-port"):
        return []
    return [f"--metrics-port={reading.theirs.pop('rest_api_port')}"]


def _checked(flag: Flag, value: str) -> str:
    if not flag.is_switch:
        return value
    try:
        return _SWITCH_VALUES[value.lower()]
    except KeyError:
        raise FlagError(f"--{flag.name} must be true or false, not {value!r}") from None


def _option(flag: Flag, value: str) -> list[str]:
    if flag.is_switch:
        return [flag.option] if value == "true" else []
    if flag.name == "num_load_threads" and value == "0":
        value = "1"
    # One word, so that a value may begin with a dash. An empty one is TensorFlow Serving's way to say "not set".
    return [f"{flag.option}={value}"] if value else []


def _from_environment(reading: _Reading, environment: Mapping[str, str]) -> Iterator[str]:
    """Take the model from the variables of TensorFlow Serving's image, unless the command line says what to serve."""
    if not environment.keys() & {"MODEL_NAME", "MODEL_BASE_PATH"}:
        return
    if _chosen(reading):
        return  # without a word, as in TensorFlow Serving, whose image always has the variables
    if _has(reading.ours, "--repository"):
        yield "MODEL_NAME and MODEL_BASE_PATH in the environment have no effect, because --repository is given"
        return
    name = environment.get("MODEL_NAME", _IMAGE_NAME)
    base_path = str(PurePosixPath(environment.get("MODEL_BASE_PATH", _IMAGE_BASE_PATH)) / name)
    if not (reading.theirs.get("model_name") or _has(reading.ours, "--model-name")):
        reading.theirs["model_name"] = name
    reading.theirs["model_base_path"] = base_path
    yield f"MODEL_NAME or MODEL_BASE_PATH is in the environment: serving {base_path} and no other model"


def _chosen(reading: _Reading) -> str:
    """The flag that says what is served instead of a repository, or nothing."""
    for name in ("model_config_file", "model_base_path"):
        if reading.theirs.get(name) or _has(reading.ours, _BY_NAME[name].option):
            return f"--{name}"
    return ""


def _has(arguments: Sequence[str], option: str) -> bool:
    return any(argument.partition("=")[0] == option for argument in arguments)


if __name__ == "__main__":
    print(table(), end="")
