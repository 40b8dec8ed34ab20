"""The server as a process: what it imports, how it ends, how it treats TensorFlow Serving's own client."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import helper

from examples.demo import free_port
from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import save_arrays
from server.wire.responses import encode_predict_request, parse_predict_response
from tests.e2e.processes import ROOT, RunningServer, client_calls, listening, serving, started
from tests.packages import Affine, add_golden, write_manifest, write_package

pytestmark = pytest.mark.alone

PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the model "affine", versions 1 and a damaged 2."""
    root = tmp_path_factory.mktemp("models")
    write_package(root / "affine" / "1")
    write_package(root / "affine" / "2")
    (root / "affine" / "2" / "model.onnx").write_bytes(b"damaged")
    with serving(root) as server:
        yield server


def test_the_serving_process_knows_neither_tensorflow_nor_the_converter(tmp_path: Path) -> None:
    """After answering requests nothing of TensorFlow, Keras, torch or the converter has been imported."""
    write_package(tmp_path / "affine" / "1")
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "import grpc\n"
        "from server.app import Server\n"
        "from server.config import ServerConfig\n"
        "settings = {'port': 0, 'metrics_port': 0, 'lame_duck_seconds': 0, 'backends': 'onnxruntime'}\n"
        "server = Server(ServerConfig(Path(sys.argv[1]), **settings))\n"
        "server.start()\n"
        "with grpc.insecure_channel(f'localhost:{server.port}') as channel:\n"
        "    reply = channel.unary_unary(sys.argv[2])(sys.stdin.buffer.read(), timeout=30)\n"
        "server.stop()\n"
        "print(json.dumps([len(reply), sorted({name.partition('.')[0] for name in sys.modules})]))\n"
    )
    ones = np.ones((1, 4), np.float32)
    request = encode_predict_request({"x": ones, "bias": ones}, name="affine")
    command = [sys.executable, "-c", script, str(tmp_path), PREDICT]
    done = subprocess.run(command, input=request, cwd=ROOT, capture_output=True, timeout=120, check=True)
    reply_bytes, modules = json.loads(done.stdout)
    assert reply_bytes > 0
    assert "onnxruntime" in modules
    foreign = {"tensorflow", "keras", "tf_keras", "tf2onnx", "converter", "torch", "onnx", "tensorflow_serving"}
    assert foreign.isdisjoint(modules)


@pytest.mark.slow
def test_the_published_client_sees_the_damaged_version(affine: RunningServer) -> None:
    """GetModelStatus has the error of the version that did not load, beside the one that serves."""
    (answer,) = client_calls(affine.address, [{"method": "GetModelStatus", "spec": {"name": "affine"}}])
    assert answer["versions"]["1"] == [30, 0, ""]
    state, code, text = answer["versions"]["2"]
    assert (state, code) == (50, 2)
    assert "model.onnx is not the file that was published" in text


def write_slow_package(folder: Path, products: int = 60, size: int = 1024) -> None:
    """A package whose one answer, x / size, takes about a second: a chain of matrix products that cannot be folded."""
    write_package(folder)
    matrix = np.full((size, size), 1 / size, np.float32)
    float_type = onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Mul", ["m", "x_in"], ["p0"])]
    nodes += [helper.make_node("MatMul", [f"p{i}", "m"], [f"p{i + 1}"]) for i in range(products)]
    nodes.append(helper.make_node("ReduceMean", [f"p{products}"], ["y_out"], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x_in", float_type, [])],
        [helper.make_tensor_value_info("y_out", float_type, [])],
        [helper.make_tensor("m", float_type, matrix.shape, matrix.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    manifest = package_pb2.ModelPackage(schema_version=1, opset=18)
    signature = manifest.signatures.add(name="serving_default", onnx_file="model.onnx")
    for alias, infos in (("x", signature.signature_def.inputs), ("y", signature.signature_def.outputs)):
        infos[alias].dtype = tensor_pb2.DT_FLOAT
        infos[alias].tensor_shape.SetInParent()
    signature.inputs.add(alias="x", onnx_name="x_in")
    signature.outputs.add(alias="y", onnx_name="y_out").tolerance.relative = 1e-3
    golden = add_golden(signature, {"x": np.array(3, np.float32)}, {"y": np.array(3 / size, np.float32)})
    save_arrays(folder / "golden.npz", golden)
    write_manifest(folder, manifest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_work_in_flight_finish(tmp_path: Path, number: signal.Signals) -> None:
    """Requests that run when the signal comes are answered, new ones find another server, the exit code is 0."""
    write_slow_package(tmp_path / "slow" / "1")
    answers = []
    with serving(tmp_path, "--lame-duck-seconds", "0") as server:
        with grpc.insecure_channel(server.address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
            request = encode_predict_request({"x": np.array(3, np.float32)}, name="slow")
            waiting = [call.future(request, timeout=60) for _ in range(4)]
            # The server has taken all four once the fastest has answered: their messages came before.
            waiting[0].result()
            server.process.send_signal(number)
            answers = [parse_predict_response(future.result())[1]["y"] for future in waiting]
        assert server.process.wait(timeout=60) == 0
    assert [float(answer) for answer in answers] == pytest.approx([3 / 1024] * 4, rel=1e-3)
    assert not listening(server.address)


def test_a_run_that_cannot_be_stopped_does_not_keep_the_process(tmp_path: Path) -> None:
    """When the time of grace is over the process ends, with 0, whatever still computes: its clients were told."""
    write_slow_package(tmp_path / "slow" / "1", products=10, size=4096)
    with (
        serving(tmp_path, "--lame-duck-seconds", "0", "--grace-seconds", "0.5") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        waiting = call.future(encode_predict_request({"x": np.array(3, np.float32)}, name="slow"), timeout=60)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=15) == 0
        assert waiting.exception() is not None


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice gets the prompt back although health is being drained for a minute."""
    write_package(tmp_path / "affine" / "1")
    with serving(tmp_path, "--lame-duck-seconds", "60") as server:
        server.process.send_signal(signal.SIGINT)
        server.log.wait_for("draining")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=20) == 0


def test_a_new_version_is_served_without_restart_and_without_a_failed_request(tmp_path: Path) -> None:
    """While clients call without pause, versions change under them: each answer is whole and of one version."""
    write_package(tmp_path / "affine" / "1", Affine(scale=1, offset=0))
    seen: dict[int, set[float]] = {}
    with serving(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        ones = np.ones((1, 4), np.float32)
        request = encode_predict_request({"x": ones, "bias": 0 * ones}, name="affine")
        stop, newest = threading.Event(), threading.Event()

        def ask() -> None:
            while not stop.is_set():
                spec, outputs = parse_predict_response(call(request, timeout=30))
                assert spec.version is not None
                seen.setdefault(spec.version, set()).add(float(outputs["y"][0, 0]))
                if spec.version == 4:
                    newest.set()

        asking = threading.Thread(target=ask, name="ask")
        asking.start()
        try:
            for version in (2, 3, 4):
                write_package(tmp_path / f"incoming-{version}", Affine(scale=version, offset=0))
                (tmp_path / f"incoming-{version}").rename(tmp_path / "affine" / str(version))
                server.log.wait_for(f"version {version - 1}: END")
            assert newest.wait(timeout=60)
        finally:
            stop.set()
            asking.join(timeout=60)
    assert seen == {version: {float(version)} for version in (1, 2, 3, 4)}


def test_a_taken_port_ends_with_a_sentence(affine: RunningServer, tmp_path: Path) -> None:
    """The second server on a port does not start, and says why, without a trace."""
    port = affine.address.partition(":")[2]
    command = [sys.executable, "-m", "server", "--repository", str(tmp_path), "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_log_says_which_device_serves(tmp_path: Path) -> None:
    """Nobody has to guess whether the GPU is used."""
    command = [sys.executable, "-m", "server", "--repository", str(tmp_path), "--port", str(free_port())]
    with started([*command, "--metrics-port", "-1"]) as (_, log):
        line = log.wait_for("backend onnxruntime-")
    assert re.search(r"backend onnxruntime-(cpu|cuda): \w+", line)


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 16])
def test_perf_analyzer_drives_the_server_unchanged(affine: RunningServer, concurrency: int) -> None:
    """NVIDIA's load generator, kind tfserving, works as it is; no request fails."""
    tool = os.environ.get("PERF_ANALYZER")
    if tool is None:
        pytest.skip("no perf_analyzer: PERF_ANALYZER=/path/to/perf_analyzer make test runs this")
    command = [tool, "-m", "affine", "--service-kind", "tfserving", "-i", "grpc", "-u", affine.address, "-b", "1"]
    command += ["--concurrency-range", str(concurrency), "-p", "1000", "-s", "50", "--max-trials", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rate = re.search(rf"Concurrency: {concurrency}, throughput: ([0-9.]+) infer/sec", done.stdout)
    assert rate is not None, done.stdout
    assert float(rate[1]) > 100
