"""Tests of `server.cli`, as processes, with TensorFlow Serving's flags."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from examples.demo import free_port
from server.config import SETTINGS
from server.wire.responses import encode_predict_request, parse_predict_response
from tests.e2e.processes import ROOT, started
from tests.packages import write_package

NO_REST = "there is no REST API here; clients use gRPC; with --monitoring_config_file it is where the metrics are"
SERVER = [sys.executable, "-m", "server"]
INPUTS = {"x": np.ones((1, 4), np.float32), "bias": np.zeros((1, 4), np.float32)}


def served_label(port: int) -> int | None:
    """The version that answers for the label "stable"."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict"
        )
        reply = call(encode_predict_request(INPUTS, name="m", label="stable"), timeout=20)
        return parse_predict_response(reply)[0].version


def test_a_start_script_of_tensorflow_serving_starts_this_server(tmp_path: Path) -> None:
    """Its flags and its configuration work as they are, and the log names what they do not do here."""
    write_package(tmp_path / "place" / "1")
    config = tmp_path / "models.config"
    config.write_text(
        f"model_config_list: {{ config: {{ name: 'm', base_path: '{tmp_path / 'place'}', model_platform: 'tensorflow',"
        " version_labels { key: 'stable' value: 1 } } }"
    )
    batching = tmp_path / "batching.config"
    batching.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 0 }")
    port = free_port()
    flags = [f"--port={port}", "--rest_api_port=8501", f"--model_config_file={config}", "--model_name=model"]
    flags += [
        "--model_base_path=/models/model",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
        "--grpc_max_threads",
        "4",
        "--metrics-port=-1",
    ]
    with started([*SERVER, *flags], env={**os.environ, "MODEL_NAME": "model"}) as (process, log):
        log.wait_for("serving 1 model(s) of")
        assert served_label(port) == 1
        process.send_signal(signal.SIGTERM)
        lines = log.rest()
        assert process.wait(timeout=60) == 0
    said = [line.partition("WARNING ")[2] for line in lines if "WARNING" in line]
    address = said.pop()
    assert address.startswith("listening on 127.0.0.1 only, where TensorFlow Serving listens on every address")
    assert said == [
        f"--rest_api_port has no effect: {NO_REST}",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--use_alts_credentials"], 2, "Error: --use_alts_credentials cannot be followed"),
        (["--ssl_config_file=/no/such/file"], 1, "/no/such/file: No such file or directory"),
        (["--token-file=/no/such/file"], 1, "/no/such/file: No such file or directory"),
        (["--admin", "--host=0.0.0.0"], 1, "--admin on 0.0.0.0 would let the whole network change what is served"),
        (["--tls-key=x"], 2, "tls_certificate and tls_key go together"),
        (["--channel-arguments=nonsense"], 2, "key=value"),
        (["--model_config_file=/no/such/file"], 1, "/no/such/file: No such file or directory"),
        (["--batching-parameters-file=/no/such/file"], 1, "/no/such/file: No such file or directory"),
        (["--no_such_flag"], 2, "--no_such_flag"),
    ],
)
def test_a_command_line_that_cannot_be_followed_says_why(arguments: list[str], code: int, text: str) -> None:
    """One line that names the flag or the file, and an exit code that is not 0."""
    command = [*SERVER, "--port=0", "--metrics-port=-1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_help_tells_a_stranger_how_to_begin() -> None:
    """At 80 columns nothing is cut: what it is, every option in its group, an example, exit codes."""
    command = [*SERVER, "--help"]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "\u2026" not in done.stdout
    for name in SETTINGS:
        assert f" --{name.replace('_', '-')} " in done.stdout
    panels = {setting.panel for setting in SETTINGS.values()}
    assert all(panel and panel in done.stdout for panel in panels)
    assert "segue-server --repository models" in done.stdout
    assert "Exit codes: 0 " in done.stdout


def test_the_log_can_be_json_from_the_first_line(tmp_path: Path) -> None:
    """Warnings about the command line, too, so that nothing needs a second reader."""
    flags = ["--port=0", "--metrics-port=-1", f"--repository={tmp_path}", "--rest_api_port=8501", "--log-format=json"]
    with started([*SERVER, *flags]) as (process, log):
        log.wait_for("serving ")
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in log.rest()]
        assert process.wait(timeout=60) == 0
    assert all(list(line)[:4] == ["time", "level", "logger", "event"] for line in lines)
    assert [line["level"] for line in lines].count("warning") == 2
