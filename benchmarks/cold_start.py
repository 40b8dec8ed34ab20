"""From nothing to an answer of the compiled form of ViT-Base: `python -m benchmarks.cold_start`.

A server is started twice on one cache folder, which is empty the first time, and asked for an image about once a second
all the while. The figures are the server's own (`segue_model_prepare_seconds` and its neighbours) and the client's:
ONNX Runtime answers while PyTorch's compiler works. Prints a table and writes JSON. Nothing else should run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import METHOD, wait_until_serving
from benchmarks.machine import describe
from benchmarks.served import NAME, make_package, one_row
from examples.demo import free_port, wait_until_listening
from server.repository.package import open_package
from server.wire.responses import encode_predict_request

RESULT: Final = Path(__file__).parent / "results" / "cold_start.json"
_PARTS: Final = {
    "prepare": "segue_model_prepare_seconds",
    "load": "segue_model_load_seconds",
    "prove": "segue_model_prove_seconds",
}
_PATIENCE_SECONDS: Final = 600.0
_PAUSE_SECONDS: Final = 1.0  # between two requests


def seconds_of(metrics: str) -> dict[str, dict[str, float]]:
    """By backend, what preparing, loading and proving took, from a server's metrics."""
    read: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(metrics):
        for part, name in _PARTS.items():
            for sample in family.samples if family.name == name else ():
                read.setdefault(sample.labels["backend"], {})[part] = sample.value
    for parts in read.values():
        parts["load"] -= parts["prepare"] + parts["prove"]  # which that metric is the sum of
    return read


def start(folder: Path, precision: str) -> dict[str, Any]:
    """Start a server, ask it until every backend has joined, and stop it."""
    request = encode_predict_request(one_row(open_package(NAME, 1, folder / "models" / NAME / "1")), name=NAME)
    backends = {"onnxruntime-cpu", "torch-cpu", *([f"torch-cpu-{precision}"] if precision != "fp32" else [])}
    with _server(folder, precision) as (port, metrics_port, begin):
        wait_until_serving(port)
        serving = time.perf_counter() - begin
        with _asking(port, request) as latencies:
            read = _joined(metrics_port, backends)
    return {
        "serving_seconds": serving,
        "backends": read,
        "requests": len(latencies),
        "longest_answer_ms": 1e3 * max(latencies),
    }


@contextmanager
def _server(folder: Path, precision: str) -> Iterator[tuple[int, int, float]]:
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-m", "server", "--repository", str(folder / "models"), "--port", str(port)]
    command += ["--metrics-port", str(metrics_port), "--backends", "onnxruntime,torch", "--precision", precision]
    command += ["--cache-folder", str(folder / "cache"), "--state-folder", str(folder / "state")]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})
    try:
        wait_until_listening(process, port)
        yield port, metrics_port, begin
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _asking(port: int, request: bytes) -> Iterator[list[float]]:
    latencies: list[float] = []
    failures: list[grpc.RpcError] = []
    enough = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            while True:
                begin = time.perf_counter()
                try:
                    predict(request, timeout=60)
                except grpc.RpcError as error:
                    failures.append(error)
                    return
                latencies.append(time.perf_counter() - begin)
                if enough.wait(_PAUSE_SECONDS):
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield latencies
    finally:
        enough.set()
        thread.join()
    if failures:
        raise failures[0]


def _joined(metrics_port: int, backends: set[str]) -> dict[str, dict[str, float]]:
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as reply:
            read = seconds_of(reply.read().decode())
        if set(read) >= backends:
            return read
        time.sleep(0.5)
    sys.exit(f"only {', '.join(sorted(read))} joined within {_PATIENCE_SECONDS:.0f} s")


def table(starts: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line for each start and backend."""
    lines = [
        "| cache | backend | prepare s | load s | prove s | longest answer meanwhile ms |",
        "|---|---|---|---|---|---|",
    ]
    for cache, figures in starts.items():
        for backend, parts in sorted(figures["backends"].items()):
            cells = " | ".join(f"{parts[part]:.2f}" for part in ("prepare", "load", "prove"))
            lines.append(f"| {cache} | {backend} | {cells} | {figures['longest_answer_ms']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--precision", choices=["fp32", "bf16", "fp16"], default="bf16", help="float32 takes part in any"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_package(folder)
        starts = {cache: start(folder, options.precision) for cache in ("empty", "filled")}
    options.result.write_text(json.dumps({"machine": describe(), "starts": starts}, indent=1) + "\n")
    print(table(starts))


if __name__ == "__main__":
    main()
