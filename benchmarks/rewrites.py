"""What each graph rewrite gains: `python -m benchmarks.rewrites` measures, writes JSON and the table of docs/graph.md.

Each model is exported once. ONNX Runtime then runs its graph as exported, with all rewrites, and with all but one, in
rounds that alternate between these; a figure is the median over the rounds of the time as exported (or without the one
rewrite) divided by the time with all. `--table` writes the table from the JSON at hand. Nothing else should run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from benchmarks.machine import describe
from converter.export import ExportJob, run_export
from converter.exported import ExportedSignature, ExportResult
from converter.graph.pipeline import REWRITES, rewrite
from examples.published_models import fetch
from server.arrays import Array
from server.backends.interface import GraphSpec, LoadedGraph, TensorPort
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.wire.dtypes import of_dtype

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "rewrites.json"
DOCUMENT = ROOT / "docs" / "graph.md"
MARKS = ("<!-- rewrites: begin -->", "<!-- rewrites: end -->")
EVERYTHING = "all"
MADE = {
    "vit-base": ("tests.models.vit", "{}", "gelu_new"),
    "vit-base-exact": ("tests.models.vit", "{}", "gelu"),
    "bert-small": ("tests.models.networks", "bert", "{}", "hidden_size=512", "num_hidden_layers=4",
                   "num_attention_heads=8", "intermediate_size=2048"),
    "transformer.keras": ("tests.models.networks", "transformer", "{}", "width=256", "heads=8", "layers=4"),
    "resnet-50.keras": ("tests.models.networks", "resnet", "{}"),
    "efficientnet-b0.keras": ("tests.models.networks", "efficientnet", "{}"),
}  # fmt: skip


def sources(folder: Path, names: list[str]) -> Iterator[tuple[str, Path]]:
    """The models by name, written into the folder or taken from published packages."""
    for name in names or [*MADE, "sleepecg-gru.keras", "basic-pitch"]:
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
        timed = {"exported", EVERYTHING, *result.applied}
        medians = _times({key: (graphs[key], folder / f"{key}.bench.onnx") for key in timed}, signature, rounds)
        return {
            "model": name.removesuffix(".keras"),
            "rewrite_seconds": round(seconds, 2),
            "applied": result.applied,
            "nodes": {key: len(graph.graph) for key, graph in graphs.items()},
            "batch": max(case.batch or 0 for case in signature.cases),
            "onnxruntime": medians,
        }


def _variables(export: ExportResult, index: int) -> Mapping[str, frozenset[str]]:
    entries = [entry for entry in export.initializers if entry.onnx == index and entry.variables]
    return {entry.initializer: frozenset(variable.name for variable in entry.variables) for entry in entries}


def _times(
    graphs: Mapping[str, tuple[ir.Model, Path]], signature: ExportedSignature, rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds, and how much faster than as exported: medians over rounds that alternate."""
    case = max(signature.cases, key=lambda case: case.batch or 0)
    feeds = {name: case.inputs[alias] for alias, name in signature.inputs.items() if name is not None}
    ports = tuple(TensorPort(name, of_dtype(array.dtype).number) for name, array in feeds.items())
    loaded: dict[str, LoadedGraph] = {}
    for key, (model, path) in graphs.items():
        ir.save(model, path)
        loaded[key] = OnnxRuntimeBackend("cpu").load(GraphSpec(path, ports, ()))
    samples: dict[str, list[float]] = {key: [] for key in loaded}
    for number in range(rounds + 1):
        order = list(loaded) if number % 2 == 0 else list(reversed(loaded))
        for key in order:
            samples[key].append(_run(loaded[key], feeds, list(signature.outputs.values())))
    warm = {key: values[1:] for key, values in samples.items()}
    return {
        key: {
            "milliseconds": round(1e3 * statistics.median(values), 3),
            "times_exported": round(statistics.median(a / b for a, b in zip(warm["exported"], values, strict=True)), 3),
        }
        for key, values in warm.items()
    }


def _run(graph: LoadedGraph, feeds: Mapping[str, Array], outputs: list[str]) -> float:
    begin = time.perf_counter()
    graph.run(feeds, outputs)
    return time.perf_counter() - begin


def table(rows: list[dict[str, Any]]) -> str:
    """The documentation's table."""
    names = [one.name for one in REWRITES]
    lines = [
        "Nodes, and ONNX Runtime's speed as a multiple of that of the graph as exported; for each rewrite what the",
        "graph has and does without it alone.",
        "",
        "| model (batch) | as exported | all rewrites | " + " | ".join(f"without {name}" for name in names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for row in rows:
        cells = [f"{row['nodes']['exported']:,} nodes, {row['onnxruntime']['exported']['milliseconds']:.1f} ms"]
        for key in (EVERYTHING, *names):
            if key in row["onnxruntime"]:
                cells.append(f"{row['nodes'][key]:,}, {row['onnxruntime'][key]['times_exported']:.2f}x")
            else:
                cells.append("")
        lines.append(f"| {row['model']} ({row['batch']}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table(rows: list[dict[str, Any]]) -> None:
    """Put the table between its marks in the documentation."""
    before, rest = DOCUMENT.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    DOCUMENT.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="some of the models; without any, all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--table", action="store_true", help="write the table from the JSON that is there")
    options = parser.parse_args()
    if not options.table:
        with tempfile.TemporaryDirectory() as name:
            rows = [measure(model, source, options.rounds) for model, source in sources(Path(name), options.models)]
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")
    rows = json.loads(RESULT.read_text())["rows"]
    write_table(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
