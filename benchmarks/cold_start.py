"""From nothing to an answer of the compiled form of ViT-Base: `python -m benchmarks.cold_start`.

A server is started twice on one cache folder, which is empty the first time, and asked for an image about once a second
all the while: ONNX Runtime answers while PyTorch's compiler works. What preparing and loading took is the server's own
figure (`segue_model_prepare_seconds` and its neighbours). Proving runs every batch size, so that the first run after
loading is timed apart: in a new process for each compiled form, which also reads the file once as the server does, for
its SHA-256. Files were written a moment ago and come from memory. Writes JSON and the table of docs/pytorch.md, which
`--table` makes again. The exit code is 1 if a claim does not hold. Nothing else should run.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import METHOD, wait_until_serving
from benchmarks.machine import describe, now
from benchmarks.served import NAME, make_package, one_row
from benchmarks.verdict import Verdict, tell
from examples.demo import free_port, wait_until_listening
from server.backends.catalogue import Offer, offered
from server.backends.interface import GraphSpec
from server.repository.package import open_package
from server.signatures import DEFAULT_SIGNATURE, ServedSignature
from server.wire.responses import encode_predict_request

ROOT: Final = Path(__file__).resolve().parent.parent
RESULT: Final = Path(__file__).parent / "results" / "cold_start.json"
DOCUMENT: Final = ROOT / "docs" / "pytorch.md"
MARKS: Final = ("<!-- cold-start: begin -->", "<!-- cold-start: end -->")
NOT_MEASURED: Final = "Not measured on a quiet machine yet."
BUILD_SECONDS: Final = 90.0
"""What the first build may take on 2 cores."""
FIRST_ANSWER_SECONDS: Final = 1.0
"""What the first answer from a cached artefact may take, besides reading the file."""
_BACKENDS: Final = "onnxruntime,torch"
_COMPILED: Final = "torch-"
_PARTS: Final = {
    "prepare": "segue_model_prepare_seconds",
    "load": "segue_model_load_seconds",
    "prove": "segue_model_prove_seconds",
}
_PATIENCE_SECONDS: Final = 600.0
_PAUSE_SECONDS: Final = 1.0  # between two requests


@dataclass(slots=True)
class _Asked:
    """What became of the requests."""

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


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


def rejected(status: Mapping[str, Any], backends: Collection[str]) -> list[str]:
    """Which of the backends will never join, and why, from a server's /status.json of one model."""
    return [
        f"{one['name']}: {one['reason']}"
        for one in status.get("backends", ())
        if one["stage"] == "rejected" and one["name"] in backends
    ]


def start(folder: Path, precision: str, backends: Collection[str]) -> dict[str, Any]:
    """Start a server, ask it until every backend has joined, and stop it."""
    request = encode_predict_request(one_row(open_package(NAME, 1, folder / "models" / NAME / "1")), name=NAME)
    with _server(folder, precision) as (port, metrics_port, begin):
        wait_until_serving(port)
        serving = time.perf_counter() - begin
        with _asking(port, request) as asked:
            read = _joined(metrics_port, backends)
    return {
        "serving_seconds": serving,
        "backends": read,
        "answers": len(asked.latencies),
        "failures": asked.failures,
        "longest_answer_ms": 1e3 * max(asked.latencies, default=0.0),
    }


@contextmanager
def _server(folder: Path, precision: str) -> Iterator[tuple[int, int, float]]:
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-m", "server", "--repository", str(folder / "models"), "--port", str(port)]
    command += ["--metrics-port", str(metrics_port), "--backends", _BACKENDS, "--precision", precision]
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
def _asking(port: int, request: bytes) -> Iterator[_Asked]:
    asked = _Asked()
    enough = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            while True:
                begin = time.perf_counter()
                try:
                    predict(request, timeout=60)
                    asked.latencies.append(time.perf_counter() - begin)
                except grpc.RpcError as error:
                    asked.failures.append(" ".join(str(error).split()))
                if enough.wait(_PAUSE_SECONDS):
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        enough.set()
        thread.join()


def _joined(metrics_port: int, backends: Collection[str]) -> dict[str, dict[str, float]]:
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        read = seconds_of(_fetched(metrics_port, "/metrics"))
        if set(read) >= set(backends):
            return read
        if never := rejected(json.loads(_fetched(metrics_port, f"/status.json?model={NAME}")), backends):
            sys.exit(f"rejected: {'; '.join(never)}")
        time.sleep(0.5)
    sys.exit(f"only {', '.join(sorted(read))} joined within {_PATIENCE_SECONDS:.0f} s")


def _fetched(metrics_port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}{path}", timeout=30) as reply:
        text: str = reply.read().decode()
    return text


def _offer(folder: Path, precision: str) -> Offer:
    return offered(_BACKENDS, precision, device="cpu", threads=0, cache=folder / "cache")


def artefacts(cache: Path) -> dict[str, dict[str, Any]]:
    """By the name of the backend: the compiled file in a cache folder, its bytes, and which torch made it."""
    found: dict[str, dict[str, Any]] = {}
    for path in cache.rglob("artefact.json"):
        recipe = json.loads(path.read_text("utf-8"))["content"]["recipe"]
        name = f"{_COMPILED}{recipe['device']}" + ("" if recipe["precision"] == "fp32" else f"-{recipe['precision']}")
        library = path.parent / "model.so"
        found[name] = {"library": library, "bytes": library.stat().st_size, "torch": recipe["torch"]}
    return found


def first_answer(name: str, folder: Path, precision: str) -> dict[str, Any]:
    """Be a new process that has never run the compiled form: read its file, load it, run it once and once more."""
    package = open_package(NAME, 1, folder / "models" / NAME / "1")
    signature = ServedSignature(next(s for s in package.manifest.signatures if s.name == DEFAULT_SIGNATURE))
    digest = next(file.sha256 for file in package.manifest.files if file.path == signature.onnx_file)
    spec = GraphSpec(package.path / signature.onnx_file, *signature.ports(), digest)
    feeds, outputs = signature.bind(one_row(package)), list(signature.outputs.values())
    backend = next(each for each in _offer(folder, precision).backends if each.name == name)
    artefact = artefacts(folder / "cache")[name]
    begin = time.perf_counter()
    with artefact.pop("library").open("rb") as file:
        hashlib.file_digest(file, "sha256")
    read = time.perf_counter()
    backend.prepare(spec, threading.Event())
    checked = time.perf_counter()
    graph = backend.load(spec)
    loaded = time.perf_counter()
    graph.run(feeds, outputs)
    first = time.perf_counter()
    graph.run(feeds, outputs)
    end = time.perf_counter()
    graph.close()
    parts = {"read": read - begin, "prepare": checked - read, "load": loaded - checked}
    parts |= {"first_run": first - loaded, "next_run": end - first}
    return {**artefact, "seconds": parts}


def _in_a_new_process(name: str, folder: Path, precision: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cold_start", "--precision", precision, "--first", name, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(folder: Path, precision: str) -> dict[str, Any]:
    """Both starts, and the first answer of each compiled form."""
    offer = _offer(folder, precision)
    if offer.absent:
        sys.exit("; ".join(f"{name}: {reason}" for name, reason in offer.absent.items()))
    names = [each.name for each in offer.backends]
    make_package(folder)
    starts = {cache: start(folder, precision, names) for cache in ("empty", "filled")}
    compiled = [name for name in names if name.startswith(_COMPILED)]
    return {"starts": starts, "compiled": {name: _in_a_new_process(name, folder, precision) for name in compiled}}


def first_answer_seconds(result: Mapping[str, Any], name: str) -> float:
    """From a filled cache to the first answer: preparing and loading in the server, and a first run."""
    parts = result["starts"]["filled"]["backends"][name]
    seconds: float = parts["prepare"] + parts["load"] + result["compiled"][name]["seconds"]["first_run"]
    return seconds


def verdicts(result: Mapping[str, Any]) -> list[Verdict]:
    """What must hold: the build's time while requests are answered, and the time to the first answer after it."""
    empty = result["starts"]["empty"]
    told = []
    for name in result["compiled"]:
        seconds = empty["backends"][name]["prepare"]
        claim = f"{name}: built in {seconds:.1f} s (aim: at most {BUILD_SECONDS:.0f})"
        told.append(Verdict(claim, seconds <= BUILD_SECONDS))
    answers, failures = empty["answers"], len(empty["failures"])
    claim = f"meanwhile the server gave {answers} answers and {failures} failures (aim: none)"
    told.append(Verdict(claim, answers > 0 and not failures))
    for name, one in result["compiled"].items():
        seconds, read = first_answer_seconds(result, name), one["seconds"]["read"]
        claim = f"{name}: from the cache to the first answer {seconds:.2f} s, of which reading the file {read:.2f} s"
        aim = f"(aim: at most {FIRST_ANSWER_SECONDS:.0f} s and the reading)"
        told.append(Verdict(f"{claim} {aim}", seconds <= FIRST_ANSWER_SECONDS + read))
    return told


def table(result: Mapping[str, Any]) -> str:
    """Markdown: for each start and backend, then for each compiled form, and what does not hold."""
    lines = _starts(result["starts"])
    heads = ["compiled form", "file", "reading it s", "preparing s", "loading s", "first run s", "next run s"]
    lines += ["", f"| {' | '.join(heads)} | from the cache to the first answer s |", "|---" * 8 + "|"]
    for name, one in result["compiled"].items():
        seconds = [one["seconds"][part] for part in ("read", "prepare", "load", "first_run", "next_run")]
        cells = [name, f"{one['bytes'] / 1e6:.0f} MB", *(f"{each:.2f}" for each in seconds)]
        lines.append(f"| {' | '.join(cells)} | {first_answer_seconds(result, name):.2f} |")
    versions = sorted({one["torch"] for one in result["compiled"].values()})
    machine = result["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, torch {', '.join(versions)}"
    lines += ["", f"{where}, {result['measured']}. The files were read from memory (page cache), not from a disk."]
    lines += [f"\n**Missed.** {verdict.claim}." for verdict in verdicts(result) if not verdict.holds]
    return "\n".join(lines)


def _starts(starts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    heads = ["cache", "backend", "prepare s", "load s", "prove s", "answers meanwhile", "failures"]
    lines = [f"| {' | '.join(heads)} | longest answer meanwhile ms |", "|---" * 8 + "|"]
    for cache, figures in starts.items():
        for backend, parts in sorted(figures["backends"].items()):
            cells = [cache, backend, *(f"{parts[part]:.2f}" for part in ("prepare", "load", "prove"))]
            cells += [str(figures["answers"]), str(len(figures["failures"])), f"{figures['longest_answer_ms']:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def render(text: str, result: Mapping[str, Any] | None) -> str:
    """The document with the tables between their marks."""
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n{table(result) if result else NOT_MEASURED}\n{MARKS[1]}{after}"


def measured(path: Path = RESULT) -> dict[str, Any] | None:
    """The JSON, if it is there."""
    result: dict[str, Any] | None = json.loads(path.read_text("utf-8")) if path.exists() else None
    return result


def main() -> int:
    """Measure, write, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--precision", choices=["fp32", "bf16", "fp16"], default="bf16", help="float32 takes part in any"
    )
    parser.add_argument("--result", type=Path, default=RESULT, help="another file leaves the document as it is")
    parser.add_argument("--table", action="store_true", help="write the table from the JSON that is there")
    parser.add_argument("--first", nargs=2, metavar=("BACKEND", "FOLDER"), help="what the benchmark starts itself with")
    options = parser.parse_args()
    if options.first:
        name, folder = options.first
        print(json.dumps(first_answer(name, Path(folder), options.precision)))
        return 0
    if not options.table:
        with tempfile.TemporaryDirectory() as made:
            result = {"machine": describe(), "measured": now(), **measure(Path(made), options.precision)}
        options.result.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    found = measured(options.result)
    if options.result == RESULT:
        DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8"), found), "utf-8")
    if found is None:
        print(NOT_MEASURED)
        return 1
    print(table(found), end="\n\n")
    return tell(verdicts(found))


if __name__ == "__main__":
    sys.exit(main())
