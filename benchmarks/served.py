"""What serving adds to a model that computes: `python -m benchmarks.served` prints a table and writes JSON.

ViT-Base is asked for one image at a time by 1, 4 and 16 callers: through gRPC, and in a process that calls the runtime
itself. Rounds alternate between the two, which share the machine's cores; medians over the rounds. Nothing else should
run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.load import latencies, wait_until_serving
from benchmarks.machine import describe
from examples.demo import free_port, wait_until_listening
from server.arrays import Array
from server.backends.interface import GraphSpec
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.repository.package import Package, open_package
from server.signatures import DEFAULT_SIGNATURE, ServedSignature
from server.wire.responses import encode_predict_request

RESULT = Path(__file__).parent / "results" / "served.json"
NAME = "vit"


def make_package(folder: Path) -> None:
    """Convert ViT-Base into a repository."""
    source = folder / "saved_model"
    subprocess.run([sys.executable, "-m", "tests.models.vit", str(source), "gelu_new"], check=True, capture_output=True)
    command = [sys.executable, "-m", "converter.cli", str(source), "--name", NAME]
    subprocess.run([*command, "--repository", str(folder / "models")], check=True, capture_output=True)


def one_row(package: Package) -> dict[str, Array]:
    """The first row of the first golden input of the default signature, by alias."""
    signature = next(each for each in package.manifest.signatures if each.name == DEFAULT_SIGNATURE)
    arrays = package.golden_arrays()
    return {alias: arrays[key][:1] for alias, key in signature.golden[0].inputs.items()}


def in_process(folder: Path, callers: int, seconds: float) -> dict[str, float]:
    """So many threads call the runtime for one row at a time."""
    package = open_package(NAME, 1, folder)
    signature = ServedSignature(next(s for s in package.manifest.signatures if s.name == DEFAULT_SIGNATURE))
    inputs, ports = signature.ports()
    graph = OnnxRuntimeBackend("cpu").load(GraphSpec(package.path / signature.onnx_file, inputs, ports))
    feeds, outputs = signature.bind(one_row(package)), list(signature.outputs.values())
    end = time.perf_counter() + seconds

    def call(mine: list[float]) -> None:
        while (begin := time.perf_counter()) < end:
            graph.run(feeds, outputs)
            mine.append(time.perf_counter() - begin)

    ordered = latencies(call, callers)
    return {"per_second": len(ordered) / seconds, "p50_us": statistics.median(ordered)}


def _child(arguments: list[str], request: bytes = b"") -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", *arguments], input=request, capture_output=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure(folder: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Rows of the table: medians over the rounds, and the ratio of the two in each round."""
    package = folder / "models" / NAME / "1"
    request = encode_predict_request(one_row(open_package(NAME, 1, package)), name=NAME)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "server",
        "--repository",
        str(folder / "models"),
        "--port",
        str(port),
        "--backends",
        "onnxruntime",
    ]
    process = subprocess.Popen([*command, "--metrics-port", "-1"], stderr=subprocess.DEVNULL)
    rows = []
    try:
        wait_until_listening(process, port)
        wait_until_serving(port)
        _child(["benchmarks.load", str(port), "1", "2", "3"], request)
        for callers in (1, 4, 16):
            pairs = []
            for number in range(rounds):
                order = ("alone", "served") if number % 2 == 0 else ("served", "alone")
                pair = {}
                for each in order:
                    if each == "served":
                        pair[each] = _child(["benchmarks.load", str(port), str(callers), str(seconds), "2"], request)
                    else:
                        pair[each] = _child(
                            ["benchmarks.served", "--in-process", str(package), str(callers), str(seconds)]
                        )
                pairs.append(pair)
            row: dict[str, Any] = {"callers": callers}
            for key in ("p50_us", "per_second"):
                for each in ("alone", "served"):
                    row[f"{each}_{key}"] = statistics.median(pair[each][key] for pair in pairs)
                row[f"ratio_{key}"] = statistics.median(pair["served"][key] / pair["alone"][key] for pair in pairs)
            rows.append(row)
    finally:
        process.terminate()
        process.wait()
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table as Markdown."""
    print("| callers | in process p50 ms | served p50 ms | ratio | in process /s | served /s | ratio |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        p50 = f"{row['alone_p50_us'] / 1e3:.1f} | {row['served_p50_us'] / 1e3:.1f} | {row['ratio_p50_us']:.3f}"
        rate = f"{row['alone_per_second']:.1f} | {row['served_per_second']:.1f} | {row['ratio_per_second']:.3f}"
        print(f"| {row['callers']} | {p50} | {rate} |")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--in-process", nargs=3, metavar=("PACKAGE", "CALLERS", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        package, callers, seconds = options.in_process
        print(json.dumps(in_process(Path(package), int(callers), float(seconds))))
        return
    with tempfile.TemporaryDirectory() as name:
        make_package(Path(name))
        rows = measure(Path(name), options.rounds, options.seconds)
    show(rows)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
