"""What the server adds to a bare gRPC echo of the same bytes: `make bench` prints a table and writes JSON.

A model that computes next to nothing is asked at concurrency 1 and 16, in rounds that alternate between Segue's server
and echo servers of two kinds, client and servers sharing two cores; the figures are medians over the rounds. The client
is NVIDIA's perf_analyzer, kind tfserving, if the environment variable PERF_ANALYZER names it, else `benchmarks.load`;
the JSON says which. The exit code is 1 if Segue is further from the faster echo than it may be. Nothing else should
run.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.machine import describe
from benchmarks.verdict import Verdict, tell
from examples.demo import free_port, wait_until_listening
from protos.serving import metadata_pb2
from server.wire.responses import encode_predict_request
from tests.packages import WIDTH, write_package

RESULT = Path(__file__).parent / "results" / "request_path.json"
ECHOES = ("threads", "asyncio")
CORES: Final = 2
ADDED_US: Final = 150
"""Microseconds that may be added to the faster echo's p50 at concurrency 1."""
SHARE: Final = 0.7
"""Of the faster echo's throughput that must be reached at concurrency 16."""

Row = dict[str, Any]
"""What one server does at one concurrency."""


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, int]]:
    """All servers at once, idle but for the one being asked; ports by name."""
    write_package(folder / "models" / "affine" / "1")
    metadata = folder / "metadata"
    with ExitStack() as stack:

        def start(*command: str) -> int:
            port = free_port()
            arguments = [sys.executable, "-m", *[part.format(port=port) for part in command]]
            process = stack.enter_context(subprocess.Popen(arguments, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            wait_until_listening(process, port)
            return port

        options = ("--metrics-port", "-1", "--poll-seconds", "60")
        ports = {
            "segue": start(
                "server",
                "--repository",
                str(folder / "models"),
                "--port",
                "{port}",
                "--backends",
                "onnxruntime",
                *options,
            )
        }
        metadata.write_bytes(_metadata(ports["segue"]))
        for name in ECHOES:
            ports[name] = start("benchmarks.echo", name, "{port}", str(metadata))
        yield ports


def _metadata(port: int) -> bytes:
    """The model's metadata, which perf_analyzer asks every server for; as soon as it is served."""
    request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "affine"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        next(reply for reply in watch if reply.status == health_pb2.HealthCheckResponse.SERVING)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/tensorflow.serving.PredictionService/GetModelMetadata"
        )
        return call(request.SerializeToString(), timeout=60)


def load(port: int, concurrency: int, seconds: float, request: bytes) -> dict[str, float]:
    """One round against one server, from a process of its own."""
    if tool := os.environ.get("PERF_ANALYZER"):
        return perf_analyzer(tool, port, concurrency, seconds)
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(concurrency), str(seconds)]
    done = subprocess.run(command, input=request, capture_output=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def perf_analyzer(tool: str, port: int, concurrency: int, seconds: float) -> dict[str, float]:
    """One round of NVIDIA's tool: three windows, which it wants to agree more or less."""
    command = [tool, "-m", "affine", "--service-kind", "tfserving", "-i", "grpc", "-u", f"127.0.0.1:{port}", "-b", "1"]
    command += ["--concurrency-range", str(concurrency), "-p", str(round(1000 * seconds / 3)), "-s", "400"]
    done = subprocess.run([*command, "--max-trials", "10"], capture_output=True, text=True, check=True)
    rate = re.search(r"Throughput: ([0-9.]+) infer/sec", done.stdout)
    p50, p99 = (re.search(rf"p{p} latency: ([0-9]+) usec", done.stdout) for p in (50, 99))
    if not (rate and p50 and p99):
        sys.exit(f"perf_analyzer has printed no figures:\n{done.stdout}{done.stderr}")
    return {"per_second": float(rate[1]), "p50_us": float(p50[1]), "p99_us": float(p99[1])}


def measure(rounds: int, seconds: float, concurrencies: Sequence[int]) -> list[Row]:
    """Rows of the table: medians over the rounds for each server and concurrency."""
    row = np.ones((1, WIDTH), np.float32)
    request = encode_predict_request({"x": row, "bias": row}, name="affine")
    rows = []
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as ports:
        for concurrency in concurrencies:
            samples: dict[str, list[dict[str, float]]] = {server: [] for server in ports}
            for number in range(rounds):
                order = list(ports) if number % 2 == 0 else list(reversed(ports))
                for server in order:
                    samples[server].append(load(ports[server], concurrency, seconds, request))
            for server, measured in samples.items():
                medians = {key: statistics.median(sample[key] for sample in measured) for key in measured[0]}
                rows.append({"server": server, "concurrency": concurrency, **medians})
    return rows


def compare(rows: Sequence[Row], concurrency: int) -> tuple[float, float]:
    """Segue beside the echoes: microseconds added to the lower p50, and the share of the higher throughput.

    The two may be different echoes': each figure is compared with the better one.
    """
    here = {row["server"]: row for row in rows if row["concurrency"] == concurrency}
    p50 = min(here[echo]["p50_us"] for echo in ECHOES)
    per_second = max(here[echo]["per_second"] for echo in ECHOES)
    return here["segue"]["p50_us"] - p50, here["segue"]["per_second"] / per_second


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What must hold."""
    added, share = compare(rows, 1)[0], compare(rows, 16)[1]
    return [
        Verdict(
            f"concurrency 1: {added:+.0f} µs beside the faster echo's p50, at most {ADDED_US:+d}", added <= ADDED_US
        ),
        Verdict(f"concurrency 16: {share:.0%} of the faster echo's throughput, at least {SHARE:.0%}", share >= SHARE),
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the table as Markdown, and Segue beside the echo that is faster by each figure."""
    print("| server | concurrency | requests/s | p50 µs | p99 µs |\n|---|---|---|---|---|")
    for row in rows:
        figures = " | ".join(f"{row[key]:.0f}" for key in ("per_second", "p50_us", "p99_us"))
        print(f"| {row['server']} | {row['concurrency']} | {figures} |")
    print()
    for concurrency in sorted({row["concurrency"] for row in rows}):
        added, share = compare(rows, concurrency)
        print(f"concurrency {concurrency}: {added:+.0f} µs at p50, {share:.0%} of the throughput")


def main() -> int:
    """Measure, print, write, judge; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)  # which all servers and clients inherit
    rows = measure(options.rounds, options.seconds, (1, 16))
    show(rows)
    client = "perf_analyzer" if os.environ.get("PERF_ANALYZER") else "benchmarks.load"
    print(f"asked by {client}, on {len(cores)} cores")
    said = verdicts(rows)
    RESULT.parent.mkdir(exist_ok=True)
    figures = {"client": client, "cores_used": len(cores), "verdicts": [str(each) for each in said], "rows": rows}
    RESULT.write_text(json.dumps({"machine": describe(), **figures}, indent=1) + "\n")
    return tell(said)


if __name__ == "__main__":
    sys.exit(main())
