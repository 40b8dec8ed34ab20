"""Tests of `server.flags`."""

from pathlib import Path

import pytest
import typer.main

from server.cli import app
from server.flags import FLAGS, Flag, FlagError, table, translate

# Every flag of TensorFlow Serving 2.21's main.cc.
THEIRS = """
port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support
enable_batching allow_version_labels_for_unavailable_models batching_parameters_file
enable_per_model_batching_parameters model_config_file model_config_file_poll_wait_seconds model_name model_base_path
num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros file_system_poll_wait_seconds
flush_filesystem_caches tensorflow_session_parallelism tensorflow_session_config_file tensorflow_intra_op_parallelism
tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file platform_config_file
per_process_gpu_memory_fraction saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
num_request_iterations_for_warmup version monitoring_config_file remove_unused_fields_from_bundle_metagraph
prefer_tflite_model num_tflite_pools num_tflite_interpreters_per_pool enable_signature_method_name_check
xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file mixed_precision
skip_initialize_tpu enable_grpc_healthcheck_service enable_serialization_as_tensor_content
"""

HOST = ("--host", "0.0.0.0")  # noqa: S104 - an argument that is parsed; nothing listens
DOCS = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def ours(*arguments: str, **environment: str) -> list[str]:
    """Our command line for one of theirs, without the address, which silences the hint about it."""
    result = list(translate([*HOST, *arguments], environment).arguments)
    assert result[:2] == list(HOST)
    return result[2:]


def warnings(*arguments: str, **environment: str) -> list[str]:
    """The warnings, without the hint about the address."""
    return list(translate([*HOST, *arguments], environment).warnings)


def test_every_flag_of_tensorflow_serving_is_known() -> None:
    """No start script fails, or is misunderstood, because of a flag that nobody thought of."""
    assert sorted(flag.name for flag in FLAGS) == sorted(THEIRS.split())


def test_every_flag_is_mapped_or_explained() -> None:
    """Each has an option that exists here, or words for the operator."""
    options = {name for parameter in typer.main.get_command(app).params for name in parameter.opts}
    for flag in FLAGS:
        option = flag.option or flag.when_false.partition("=")[0]
        assert option in options if option else flag.instead, flag.name


@pytest.mark.parametrize("flag", [f for f in FLAGS if not (f.option or f.when_false)], ids=lambda flag: flag.name)
def test_a_flag_without_effect_is_never_silent(flag: Flag) -> None:
    """A value that asks for something which is not done is answered in words that name the flag."""
    values = {"true", "false"} if flag.is_switch else {"7"}
    for value in values - flag.same:
        argument = f"--{flag.name}={value}"
        if flag.refused:
            with pytest.raises(FlagError, match=f"^--{flag.name} cannot be followed: "):
                translate([argument], {})
        else:
            assert warnings(argument) == [f"--{flag.name} has no effect: {flag.instead}"]
            assert ours(argument) == []
    for value in flag.same:
        assert warnings(f"--{flag.name}={value}") == []


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (["--port=9000"], ["--port=9000"]),
        (["--port", "9000"], ["--port", "9000"]),
        (["--model_name=m", "--model_base_path=/m"], ["--model-name=m", "--model-base-path=/m"]),
        (["--model_name", "m", "--model_base_path", "/m"], ["--model-name=m", "--model-base-path=/m"]),
        (["--model_config_file=/c"], ["--model-config-file=/c"]),
        (["--model_config_file_poll_wait_seconds=60"], ["--model-config-poll-seconds=60"]),
        (["--file_system_poll_wait_seconds=0"], ["--poll-seconds=0"]),
        (["--grpc_max_threads=8", "--grpc_socket_path=/s"], ["--request-threads=8", "--socket=/s"]),
        (["--grpc_channel_arguments=grpc.a=1,grpc.b=x"], ["--channel-arguments=grpc.a=1,grpc.b=x"]),
        (["--tensorflow_intra_op_parallelism=4"], ["--threads=4"]),
        (["--tensorflow_session_parallelism=4"], ["--threads=4"]),
        (["--num_load_threads=0"], ["--load-threads=1"]),
        (["--num_load_threads=4"], ["--load-threads=4"]),
        (["--enable_serialization_as_tensor_content"], ["--tensor-content"]),
        (["--enable_serialization_as_tensor_content=true"], ["--tensor-content"]),
        (["--enable_serialization_as_tensor_content", "True"], ["--tensor-content"]),
        (["--enable_serialization_as_tensor_content=1"], ["--tensor-content"]),
        (["--enable_serialization_as_tensor_content=false"], []),
        (["--enable_serialization_as_tensor_content", "--admin"], ["--admin", "--tensor-content"]),
        (["--allow_version_labels_for_unavailable_models=true"], ["--labels-before-versions"]),
        (["--enable_batching"], []),
        (["--enable_batching=false"], ["--max-batch-size=1"]),
        (["--enable_batching", "--batching_parameters_file=/b"], ["--batching-parameters-file=/b"]),
        (["--enable_per_model_batching_parameters"], ["--per-model-batching"]),
        (["--version"], ["--version"]),
        (["--version=false"], []),
        (["--model_name=a", "--model_name=b"], ["--model-name=b"]),
        (["--model_config_file="], []),
        (["--ssl_config_file=/ssl.conf"], ["--ssl-config-file=/ssl.conf"]),
        (["--monitoring_config_file=/m"], ["--monitoring-config-file=/m"]),
        (["--monitoring_config_file=/m", "--rest_api_port=0"], ["--monitoring-config-file=/m"]),
        (
            ["--rest_api_port=8501", "--monitoring_config_file=/m"],
            ["--metrics-port=8501", "--monitoring-config-file=/m"],
        ),
        (["--repository", "models", "--poll-seconds", "2"], ["--repository", "models", "--poll-seconds", "2"]),
        (["--no-such-flag"], ["--no-such-flag"]),
    ],
    ids=" ".join,
)
def test_flags_become_our_options(theirs: list[str], expected: list[str]) -> None:
    """Each spelling that start scripts use does what it did; our own options pass as they are."""
    assert ours(*theirs) == expected
    assert warnings(*theirs) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model_name"], "--model_name needs a value"),
        (["--use_alts_credentials"], "--use_alts_credentials cannot be followed: this server has no ALTS"),
        (["--batching_parameters_file=/b"], "--batching_parameters_file is set without setting --enable_batching"),
        (["--enable_batching=maybe"], "--enable_batching must be true or false, not 'maybe'"),
    ],
)
def test_a_command_line_that_cannot_be_followed_is_refused(arguments: list[str], text: str) -> None:
    """The text names the flag; a server that should be encrypted never answers in the clear."""
    with pytest.raises(FlagError, match=f"^{text}"):
        translate(arguments, {})


def test_our_port_of_the_metrics_goes_before_the_rest_port() -> None:
    """Who says where the metrics are has said it; the REST port then has no effect, which is said."""
    flags = ["--metrics-port=9", "--rest_api_port=8501", "--monitoring_config_file=/m"]
    assert ours(*flags) == ["--metrics-port=9", "--monitoring-config-file=/m"]
    assert [line.partition(" ")[0] for line in warnings(*flags)] == ["--rest_api_port"]


def test_the_address_is_never_a_surprise() -> None:
    """Who comes from TensorFlow Serving, which listens everywhere, reads that this server does not."""
    assert "add --host 0.0.0.0" in translate(["--model_base_path=/m"], {}).warnings[0]
    assert translate(["--model_base_path=/m", "--host=127.0.0.1"], {}).warnings == ()
    assert translate(["--port", "8500", "--repository", "models"], {}).warnings == ()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MODEL_NAME": "m"}, ["--model-name=m", "--model-base-path=/models/m"]),
        ({"MODEL_BASE_PATH": "/there"}, ["--model-name=model", "--model-base-path=/there/model"]),
        ({"MODEL_NAME": "m", "MODEL_BASE_PATH": "/there/"}, ["--model-name=m", "--model-base-path=/there/m"]),
        ({"MODEL": "m"}, []),
    ],
)
def test_the_variables_of_tensorflow_servings_image_are_read(environment: dict[str, str], expected: list[str]) -> None:
    """The defaults are the image's, and the log says that the environment has decided."""
    assert ours(**environment) == expected
    assert len(warnings(**environment)) == bool(expected)


def test_the_command_line_goes_before_the_environment() -> None:
    """As in the image, whose entry point puts the variables first; a repository that is ordered is served."""
    variables = {"MODEL_NAME": "m", "MODEL_BASE_PATH": "/b"}
    assert ours("--model_config_file=/c", **variables) == ["--model-config-file=/c"]
    assert ours("--model-config-file", "/c", **variables) == ["--model-config-file", "/c"]
    assert ours("--model_base_path=/m", **variables) == ["--model-base-path=/m"]
    assert ours("--model_name=n", **variables) == ["--model-name=n", "--model-base-path=/b/m"]
    assert ours("--repository", "r", **variables) == ["--repository", "r"]
    assert warnings("--repository", "r", **variables) == [
        "MODEL_NAME and MODEL_BASE_PATH in the environment have no effect, because --repository is given"
    ]


def test_a_repository_that_is_not_served_is_said() -> None:
    """Two ways to say what is served do not pass unnoticed."""
    for chosen in ("--model_config_file", "--model_base_path"):
        assert warnings("--repository=r", f"{chosen}=/m") == [
            f"--repository has no effect, because {chosen} says what is served"
        ]


def test_the_documentation_lists_every_flag_as_it_is() -> None:
    """The table is written by `python -m server.flags`."""
    assert table() in DOCS.read_text()
