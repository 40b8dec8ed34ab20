"""What ONNX Runtime's session options gain on the CPU: `python -m benchmarks.backends.options`.

Each variant differs in one option from what the backend sets. Sessions of all variants are in one process, which spin
nowhere, and run in turns; a figure is the median over the rounds of the backend's own time divided by the variant's.
`--onnx NAME=FILE` adds models to the perceptron that is made here.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import helper, numpy_helper

from benchmarks.backends.figures import Ratio, paired_ratio
from benchmarks.machine import describe
from server.arrays import Array
from server.backends.onnx_runtime import session_options

RESULT: Final = Path(__file__).parents[1] / "results" / "session_options.json"
OURS: Final = "as the backend sets them"

Change = Callable[[ort.SessionOptions], None]


def _entry(key: str, value: str) -> Change:
    return lambda options: options.add_session_config_entry(key, value)


def _attribute(name: str, value: object) -> Change:
    return lambda options: setattr(options, name, value)


VARIANTS: Final[Mapping[str, Change]] = {
    OURS: lambda _: None,
    "threads left to ONNX Runtime (pinned)": _attribute("intra_op_num_threads", 0),
    "one thread": _attribute("intra_op_num_threads", 1),
    "denormals as zero": _entry("session.set_denormal_as_zero", "1"),
    "no arena": _attribute("enable_cpu_mem_arena", value=False),
    "no memory pattern": _attribute("enable_mem_pattern", value=False),
    "dynamic block base 4": _entry("session.dynamic_block_base", "4"),
    "extended rewrites only": _attribute(
        "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ),
    "no rewrites": _attribute("graph_optimization_level", ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
    "operators in parallel": _attribute("execution_mode", ort.ExecutionMode.ORT_PARALLEL),
}  # fmt: skip


def perceptron(folder: Path) -> Path:
    """Three small layers, where what surrounds the computation is most of the time."""
    rng = np.random.default_rng(0)
    layers = "a = Gemm(x, u, p) b = Relu(a) c = Gemm(b, v, p) d = Relu(c) y = MatMul(d, w)"
    text = f"g (float[B,64] x) => (float[B,10] y) {{{layers}}}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]>\n{text}')
    for name, shape in {"u": (64, 256), "v": (256, 256), "w": (256, 10), "p": (256,)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    onnx.save(model, folder / "perceptron.onnx")
    return folder / "perceptron.onnx"


def feeds_of(path: Path, batch: int) -> dict[str, Array]:
    """Random rows for every input, whose first dimension is the batch."""
    rng = np.random.default_rng(0)
    feeds = {}
    for port in onnx.load(path, load_external_data=False).graph.input:
        sizes = [dim.dim_value or batch for dim in port.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
        feeds[port.name] = rng.standard_normal(sizes).astype(dtype)
    return feeds


def measure(name: str, path: Path, batch: int, rounds: int) -> dict[str, Any]:
    """One model: milliseconds of the backend's options, and the gain of each variant."""
    feeds, sessions = feeds_of(path, batch), {}
    for variant, change in VARIANTS.items():
        options = session_options()
        change(options)
        sessions[variant] = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    samples: dict[str, list[float]] = {variant: [] for variant in sessions}
    for number in range(rounds + 2):
        order = list(sessions) if number % 2 == 0 else list(reversed(sessions))
        for variant in order:
            begin = time.perf_counter()
            sessions[variant].run(None, feeds)
            samples[variant].append(time.perf_counter() - begin)
    warm = {variant: seconds[2:] for variant, seconds in samples.items()}
    gains = {variant: paired_ratio(warm[OURS], seconds) for variant, seconds in warm.items() if variant != OURS}
    return {
        "model": name,
        "batch": batch,
        "rounds": rounds,
        "milliseconds": 1e3 * float(np.median(warm[OURS])),
        "gains": {variant: [gain.median, gain.low, gain.high] for variant, gain in gains.items()},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each variant, a column for each model."""
    heads = [f"{row['model']} ({row['batch']}), {row['milliseconds']:.2f} ms" for row in rows]
    lines = [f"| option | {' | '.join(heads)} |", "|---|" + "---|" * len(rows)]
    for variant in rows[0]["gains"]:
        gains = " | ".join(str(Ratio(*row["gains"][variant])) for row in rows)
        lines.append(f"| {variant} | {gains} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {"perceptron": perceptron(Path(folder))}
        models |= {name: Path(file) for name, file in (each.split("=", 1) for each in options.onnx)}
        rows = [
            # a model of microseconds needs more rounds than one of a second
            measure(name, path, options.batch, options.rounds * (20 if name == "perceptron" else 1))
            for name, path in models.items()
        ]
    options.result.parent.mkdir(exist_ok=True)
    options.result.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
