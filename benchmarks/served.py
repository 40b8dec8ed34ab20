"""What serving adds to a model that computes: `python -m benchmarks.served` prints a table and writes JSON.

ViT-Base is asked for one image at a time by 1, 4 and 16 callers: through gRPC, and in a process that calls the runtime
itself, by as many callers and by one. A server and that process are loaded all the time and take turns in short rounds;
what is compared are medians of the ratios within the rounds, with their 95 % intervals. For each number of callers that
takes less than ten minutes; what was measured within a day on a machine like this one is not measured again. The exit
code is 1 if a median is beyond its limit. Nothing else should run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc

from benchmarks.backends.figures import Ratio, paired_ratio
from benchmarks.load import METHOD
from benchmarks.machine import describe, is_fresh, now
from benchmarks.soak.servers import ServerProcess, running
from benchmarks.turns import Contender, Turn, rounds, take_turns
from benchmarks.verdict import Verdict, tell
from server.arrays import Array
from server.backends.interface import GraphSpec
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.repository.package import Package, open_package
from server.signatures import DEFAULT_SIGNATURE, ServedSignature
from server.wire.responses import encode_predict_request

RESULT: Final = Path(__file__).parent / "results" / "served.json"
NAME: Final = "vit"
REQUESTS: Final[Mapping[int, int]] = {1: 8, 4: 12, 16: 32}
"""Of a turn, by the number of callers: a second or two, and six for the last, which is two of its largest batches."""
BEFORE: Final[Mapping[int, int]] = {1: 1, 4: 8, 16: 4}
"""Turns that do not count: a server that is asked by several learns in some hundred requests how many rows to join."""
OVERHEAD: Final = 1.02
"""Times the time in process that serving may take."""

Figures = dict[str, Any]


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


def call_in_process(folder: Path) -> None:
    """Be the contender that calls the runtime itself, for one row at a time."""
    package = open_package(NAME, 1, folder)
    signature = ServedSignature(next(s for s in package.manifest.signatures if s.name == DEFAULT_SIGNATURE))
    inputs, ports = signature.ports()
    graph = OnnxRuntimeBackend("cpu").load(GraphSpec(package.path / signature.onnx_file, inputs, ports))
    feeds, outputs = signature.bind(one_row(package)), list(signature.outputs.values())
    take_turns(lambda _: graph.run(feeds, outputs))


def call_server(folder: Path, address: str) -> None:
    """Be the contender that asks a server for one row at a time, each caller over a connection of its own."""
    request = encode_predict_request(one_row(open_package(NAME, 1, folder)), name=NAME)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(address, options=options)) for _ in range(max(REQUESTS))]
        calls: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]] = [each.unary_unary(METHOD) for each in channels]
        take_turns(lambda caller: calls[caller](request, timeout=120))


def measure(folder: Path, callers: int, seconds: float) -> dict[str, list[Turn]]:
    """The turns of "served", "alone" by as many callers, and, if these are several, "single" by one."""
    package = folder / "models" / NAME / "1"
    server = ServerProcess(folder / "models", "--poll-seconds", "60")
    arguments = ("benchmarks.served", "--contender", str(package))
    with running(server), Contender(arguments) as alone, Contender([*arguments, server.address]) as served:
        cells = {"served": (served, callers, REQUESTS[callers]), "alone": (alone, callers, REQUESTS[callers])}
        if callers > 1:
            cells["single"] = (alone, 1, REQUESTS[1])
        return rounds(cells, seconds, before=BEFORE[callers])


def compare(turns: Mapping[str, Sequence[Turn]]) -> Figures:
    """Medians, and the ratios that count, each with its interval.

    Returns:
        "overhead" is the time that the same number of requests takes served, by that in process with as many callers.
        "latency" is the ratio of the median requests. "throughput" is what is served by what one caller gets in
        process.
    """
    each = {name: [turn.each for turn in seen] for name, seen in turns.items()}
    p50 = {name: [turn.p50 for turn in seen] for name, seen in turns.items()}
    ratios = {
        "overhead": paired_ratio(each["served"], each["alone"]),
        "latency": paired_ratio(p50["served"], p50["alone"]),
        "throughput": paired_ratio(each.get("single", each["alone"]), each["served"]),
    }
    return {
        "rounds": len(each["served"]),
        "requests_each_round": turns["served"][0].requests,
        "per_second": {name: 1 / median(seconds) for name, seconds in each.items()},
        "p50_ms": {name: 1e3 * median(seconds) for name, seconds in p50.items()},
        **{name: [ratio.median, ratio.low, ratio.high] for name, ratio in ratios.items()},
    }


def verdicts(callers: int, figures: Figures) -> list[Verdict]:
    """What must hold. One caller's requests are never joined, so that its throughput is its overhead over again."""
    overhead, throughput = Ratio(*figures["overhead"]), Ratio(*figures["throughput"])
    told = [
        Verdict(
            f"callers {callers}: serving takes {_words(overhead)} times as long as in process, at most {OVERHEAD}",
            overhead.median <= OVERHEAD,
        )
    ]
    if callers > 1:
        claim = f"callers {callers}: {_words(throughput)} times the throughput of one caller in process, at least 1"
        told.append(Verdict(claim, throughput.median >= 1))
    return told


def _words(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"


def show(results: Mapping[int, Figures]) -> str:
    """The table as Markdown."""
    heads = ["callers", "in process p50 ms", "served p50 ms", "in process /s", "served /s", "times as long"]
    lines = [f"| {' | '.join([*heads, 'times the throughput of one caller in process'])} |", "|---" * 7 + "|"]
    for callers, figures in results.items():
        p50, rate = figures["p50_ms"], figures["per_second"]
        cells = [
            str(callers),
            f"{p50['alone']:.1f}",
            f"{p50['served']:.1f}",
            f"{rate['alone']:.2f}",
            f"{rate['served']:.2f}",
        ]
        cells += [_words(Ratio(*figures["overhead"])), _words(Ratio(*figures["throughput"]))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure what is missing, write, print, judge; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, nargs="+", choices=list(REQUESTS), default=list(REQUESTS))
    parser.add_argument("--seconds", type=float, default=300.0, help="of rounds, for each number of callers")
    parser.add_argument("--folder", type=Path, help="keep the converted model here, or use the one that is there")
    parser.add_argument("--again", action="store_true", help="also what was measured within a day")
    parser.add_argument("--contender", nargs="+", metavar=("PACKAGE", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        package, *address = options.contender
        if address:
            call_server(Path(package), *address)
        else:
            call_in_process(Path(package))
        return 0
    written: dict[str, Figures] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results = {callers: written[str(callers)] for callers in REQUESTS if str(callers) in written}
    todo = [callers for callers in options.callers if options.again or not is_fresh(results.get(callers))]
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if todo and not (folder / "models" / NAME / "1").exists():
            make_package(folder)
        for callers in todo:
            figures = compare(measure(folder, callers, options.seconds))
            results[callers] = {"measured": now(), "machine": describe(), "figures": figures}
            RESULT.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    asked = {callers: results[callers]["figures"] for callers in options.callers}
    print(show(asked))
    return tell([verdict for callers, figures in asked.items() for verdict in verdicts(callers, figures)])


if __name__ == "__main__":
    sys.exit(main())
