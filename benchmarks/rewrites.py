"""What each graph rewrite gains: `python -m benchmarks.rewrites` measures, writes JSON and the tables of docs/graph.md.

Each model is exported once. ONNX Runtime then runs its graph as exported, with all rewrites, and with all but one, in
rounds that alternate between these; a figure is the median over the rounds of the time as exported divided by that of
the other graph. The models of COMPILED are compiled by PyTorch, too, each graph apart, and timed likewise. A model that
is done is not done again (`--again` does). `--table` writes the tables from the JSON at hand. Nothing else should run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from benchmarks.machine import describe
from converter.export import ExportJob, run_export
from converter.exported import ExportedSignature, ExportResult
from converter.graph.pipeline import REWRITES, rewrite
from examples.published_models import fetch
from server.arrays import Array
from server.backends.aot_inductor import AotInductorBackend
from server.backends.interface import Backend, GraphSpec, LoadedGraph, TensorPort
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.wire.dtypes import of_dtype

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "rewrites.json"
DOCUMENT = ROOT / "docs" / "graph.md"
MARKS = ("<!-- rewrites: begin -->", "<!-- rewrites: end -->")
NOT_MEASURED = "Not measured on a quiet machine yet."
EVERYTHING = "all"
MADE = {
    "vit-base": ("tests.models.vit", "{}", "gelu_new"),
    "vit-base-exact": ("tests.models.vit", "{}", "gelu"),
    "vit-4-layers": ("tests.models.vit", "{}", "gelu", "num_hidden_layers=4"),
    "bert-small": ("tests.models.networks", "bert", "{}", "hidden_size=512", "num_hidden_layers=4",
                   "num_attention_heads=8", "intermediate_size=2048"),
    "transformer.keras": ("tests.models.networks", "transformer", "{}", "width=256", "heads=8", "layers=4"),
    "resnet-50.keras": ("tests.models.networks", "resnet", "{}"),
    "efficientnet-b0.keras": ("tests.models.networks", "efficientnet", "{}"),
}  # fmt: skip
MODELS = (*MADE, "sleepecg-gru.keras", "basic-pitch")
COMPILED = ("vit-4-layers", "bert-small")


def sources(folder: Path, names: list[str]) -> Iterator[tuple[str, Path]]:
    """The models by name, written into the folder or taken from published packages."""
    for name in names:
        if name in MADE:
            command = [part.format(folder / name) for part in MADE[name]]
            subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, capture_output=True)
            yield name, folder / name
        elif name == "basic-pitch":
            yield name, fetch(name) / "nmp"
        else:
            with zipfile.ZipFile(fetch("sleepecg") / "wrn-gru-mesa.zip") as archive:
                yield name, Path(archive.extract("classifier.keras", folder))


def measure(name: str, source: Path, rounds: int) -> dict[str, Any]:
    """A row: nodes and times of one model."""
    kind = "keras" if source.suffix == ".keras" else "saved_model"
    job = ExportJob(source, "keras" if kind == "keras" else "saved_model")
    with run_export(job, on_progress=lambda event: None) as export:  # noqa: ARG005 - nobody watches
        signature = export.signatures[-1]
        folder = signature.onnx.parent
        model, variables = ir.load(signature.onnx), _variables(export, len(export.signatures) - 1)
        begin = time.perf_counter()
        result = rewrite(model, variables)
        seconds = time.perf_counter() - begin
        graphs = {"exported": model, EVERYTHING: result.model}
        graphs |= {one: rewrite(model, variables, without=[one]).model for one in result.applied}
        files = {key: folder / f"{key}.bench.onnx" for key in ("exported", EVERYTHING, *result.applied)}
        for key, path in files.items():
            ir.save(graphs[key], path)
        times = {"onnxruntime": _times(files, signature, rounds, OnnxRuntimeBackend("cpu"))}
        if name in COMPILED:
            times["pytorch"] = _times(files, signature, rounds, AotInductorBackend(folder / "compiled"))
        return {
            "model": name.removesuffix(".keras"),
            "rewrite_seconds": round(seconds, 2),
            "applied": result.applied,
            "nodes": {key: len(graph.graph) for key, graph in graphs.items()},
            "batch": max(case.batch or 0 for case in signature.cases),
            **times,
        }


def _variables(export: ExportResult, index: int) -> Mapping[str, frozenset[str]]:
    entries = [entry for entry in export.initializers if entry.onnx == index and entry.variables]
    return {entry.initializer: frozenset(variable.name for variable in entry.variables) for entry in entries}


def _times(
    files: Mapping[str, Path], signature: ExportedSignature, rounds: int, backend: Backend
) -> dict[str, dict[str, float]]:
    """Milliseconds, and how much faster than as exported: medians over rounds that alternate."""
    case = max(signature.cases, key=lambda case: case.batch or 0)
    feeds = {name: case.inputs[alias] for alias, name in signature.inputs.items() if name is not None}
    answers = {name: case.outputs[alias] for alias, name in signature.outputs.items()}
    loaded: dict[str, LoadedGraph] = {}
    for key, path in files.items():
        spec = GraphSpec(path, _ports(feeds), _ports(answers))
        backend.prepare(spec, threading.Event())
        loaded[key] = backend.load(spec)
    samples: dict[str, list[float]] = {key: [] for key in loaded}
    for number in range(rounds + 1):
        order = list(loaded) if number % 2 == 0 else list(reversed(loaded))
        for key in order:
            samples[key].append(_run(loaded[key], feeds, list(signature.outputs.values())))
    for graph in loaded.values():
        graph.close()
    warm = {key: values[1:] for key, values in samples.items()}
    return {
        key: {
            "milliseconds": round(1e3 * statistics.median(values), 3),
            "times_exported": round(statistics.median(a / b for a, b in zip(warm["exported"], values, strict=True)), 3),
        }
        for key, values in warm.items()
    }


def _ports(arrays: Mapping[str, Array]) -> tuple[TensorPort, ...]:
    return tuple(TensorPort(name, of_dtype(array.dtype).number) for name, array in arrays.items())


def _run(graph: LoadedGraph, feeds: Mapping[str, Array], outputs: list[str]) -> float:
    begin = time.perf_counter()
    graph.run(feeds, outputs)
    return time.perf_counter() - begin


def table(rows: list[dict[str, Any]]) -> str:
    """The documentation's tables: what each rewrite gains, each model for ONNX Runtime, and what PyTorch compiled."""
    compiled = [row for row in rows if "pytorch" in row]
    parts = [
        "The most that each rewrite gains: the graph with all of them beside the one without it, on the model where",
        "that is most. Above 1: faster with it.",
        "",
        *_gains(rows),
        "",
        "Nodes, and ONNX Runtime's speed as a multiple of that of the graph as exported; for each rewrite what the",
        "graph has and does without it alone.",
        "",
        *_lines(rows, "onnxruntime"),
    ]
    if compiled:
        parts += ["", "The same compiled by PyTorch:", "", *_lines(compiled, "pytorch")]
    return "\n".join(parts)


def nodes_saved(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, str]]:
    """By model where the rewrite found something, how many nodes more the graph has without it; the most first."""
    saved = [(row["nodes"][name] - row["nodes"][EVERYTHING], row["model"]) for row in rows if name in row["nodes"]]
    return sorted(saved, key=lambda pair: pair[0], reverse=True)


def times_faster(rows: Sequence[Mapping[str, Any]], name: str, runtime: str) -> list[tuple[float, str]]:
    """By model where the rewrite found something, how many times as fast the graph is with it; the most first."""
    gained = [
        (row[runtime][EVERYTHING]["times_exported"] / row[runtime][name]["times_exported"], row["model"])
        for row in rows
        if name in row.get(runtime, {})
    ]
    return sorted(gained, key=lambda pair: pair[0], reverse=True)


def _gains(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| rewrite | nodes saved | ONNX Runtime | PyTorch |"
    yield "|---|---|---|---|"
    for name in (one.name for one in REWRITES):
        cells = [f"{count:,} ({model})" for count, model in nodes_saved(rows, name)[:1]] or [""]
        for runtime in ("onnxruntime", "pytorch"):
            cells += [f"{times:.2f}x ({model})" for times, model in times_faster(rows, name, runtime)[:1]] or [""]
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def _lines(rows: list[dict[str, Any]], runtime: str) -> Iterator[str]:
    names = [one.name for one in REWRITES]
    yield "| model (batch) | as exported | all rewrites | " + " | ".join(f"without {name}" for name in names) + " |"
    yield "|---|---|---|" + "---|" * len(names)
    for row in rows:
        times = row[runtime]
        cells = [f"{row['nodes']['exported']:,} nodes, {times['exported']['milliseconds']:.1f} ms"]
        cells += [
            f"{row['nodes'][key]:,}, {times[key]['times_exported']:.2f}x" if key in times else ""
            for key in (EVERYTHING, *names)
        ]
        yield f"| {row['model']} ({row['batch']}) | " + " | ".join(cells) + " |"


def measured() -> list[dict[str, Any]]:
    """The rows of the JSON, none if it is not there."""
    rows: list[dict[str, Any]] = json.loads(RESULT.read_text("utf-8"))["rows"] if RESULT.exists() else []
    return rows


def render(text: str, rows: list[dict[str, Any]]) -> str:
    """The document with the tables between their marks."""
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n{table(rows) if rows else NOT_MEASURED}\n{MARKS[1]}{after}"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="some of the models; without any, all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--again", action="store_true", help="also models that are done")
    parser.add_argument("--table", action="store_true", help="write the table from the JSON that is there")
    options = parser.parse_args()
    rows = [] if options.again and not options.table else measured()
    if not options.table:
        done = {row["model"] for row in rows}
        wanted = [name for name in options.models or MODELS if name.removesuffix(".keras") not in done]
        with tempfile.TemporaryDirectory() as folder:
            for model, source in sources(Path(folder), wanted):
                rows.append(measure(model, source, options.rounds))
                RESULT.parent.mkdir(exist_ok=True)
                RESULT.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")
    DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8"), rows), "utf-8")
    print(table(rows) if rows else NOT_MEASURED)


if __name__ == "__main__":
    main()
