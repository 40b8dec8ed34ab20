"""Which way to bfloat16 is better: `python -m benchmarks.casting` writes JSON and the figures in docs/pytorch.md.

The module that ViT-Base is lowered to is compiled twice, as the server compiles it: under torch's autocast, and with
all its weights and values cast. Both run in turns; a time is the median over the rounds, an error is to the module in
float32, over ERRORS images. Takes four minutes on 2 cores; nothing else should run.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from benchmarks.backends.figures import Ratio, paired_ratio
from benchmarks.machine import describe, now
from benchmarks.served import NAME, make_package, one_row
from server.arrays import Array
from server.backends.aot_abi import CompiledModel, Torch
from server.lowering.compile import to_shared_object
from server.lowering.exporting import export
from server.lowering.module import Port
from server.lowering.precision import AtPrecision
from server.lowering.walk import lower
from server.repository.package import open_package

RESULT: Final = Path(__file__).parent / "results" / "casting.json"
DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "pytorch.md"
BEGIN: Final = "<!-- casting: begin -->"
END: Final = "<!-- casting: end -->"
BATCHES: Final = (1, 4)
ERRORS: Final = 32


class Cast(nn.Module):
    """A module with all weights and values in bfloat16, and its inputs and outputs in float32."""

    def __init__(self, module: nn.Module) -> None:
        """Cast a module, which is changed."""
        super().__init__()
        self.module = module.to(torch.bfloat16)

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute."""
        answers = self.module(*(value.to(torch.bfloat16) for value in values))
        return tuple(answer.to(torch.float32) for answer in answers)


def compiled(module: nn.Module, ports: Sequence[Port], library: Path) -> CompiledModel:
    """Compile as the server does (`server.lowering.compile`), and load what comes of it."""
    exported = export(module, ports, "cpu")
    to_shared_object(exported, library, {"freezing": True})
    return CompiledModel(Torch(Path(torch.__file__).parent / "lib"), library, "cpu", 1)


def measure(onnx_file: Path, row: Array, folder: Path, rounds: int) -> dict[str, Any]:
    """Times and errors by batch.

    Args:
        onnx_file: The graph.
        row: What it is asked, of one row; the others of a batch are the same with noise.
        folder: Where the compiled forms are written.
        rounds: How many.
    """
    exact, first, second = (lower(onnx_file).requires_grad_(requires_grad=False) for _ in range(3))
    ways: dict[str, nn.Module] = {"autocast": AtPrecision(first, "bf16", "cpu"), "cast": Cast(second)}
    calls = {name: compiled(module, exact.inputs, folder / f"{name}.so") for name, module in ways.items()}
    rng = np.random.default_rng(0)
    images = np.repeat(row, ERRORS, axis=0)
    images += rng.normal(0, 1, images.shape).astype(images.dtype)
    wrong: dict[str, list[Array]] = {name: [] for name in calls}
    for batch in np.split(images, ERRORS // max(BATCHES)):
        right = exact(torch.from_numpy(batch))[0].numpy()
        for name, call in calls.items():
            wrong[name].append(call.run([batch])[0] - right)
    times: dict[str, Any] = {}
    for size in BATCHES:
        batch = images[:size]
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                begin = time.perf_counter()
                call.run([batch])
                seconds[name].append(time.perf_counter() - begin)
        gain = paired_ratio(seconds["autocast"], seconds["cast"])
        times[str(size)] = {
            "milliseconds": {name: 1e3 * sorted(each)[len(each) // 2] for name, each in seconds.items()},
            "cast_gains": [gain.median, gain.low, gain.high],
        }
    return {
        "batches": times,
        "rms_error": {name: float(np.sqrt(np.mean(np.square(each)))) for name, each in wrong.items()},
    }


def show(result: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = ["| batch | autocast, ms | all cast, ms | times as fast all cast |", "|---|---|---|---|"]
    for size, figures in result["batches"].items():
        times = figures["milliseconds"]
        lines.append(f"| {size} | {times['autocast']:.1f} | {times['cast']:.1f} | {Ratio(*figures['cast_gains'])} |")
    errors = result["rms_error"]
    told = f"Off by {errors['autocast']:.1e} under autocast and by {errors['cast']:.1e} all cast (root mean square)."
    machine = result["machine"]
    return "\n".join(
        [
            *lines,
            "",
            told,
            f"{machine['processor']}, {machine['cores']} cores, torch {result['torch']}, {result['measured']}.",
        ]
    )


def render(text: str, result: dict[str, Any]) -> str:
    """The document with these figures."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{show(result)}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Measure, write, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--folder", type=Path, help="keep the converted model here, or use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        folder = options.folder or Path(scratch)
        if not (folder / "models" / NAME / "1").exists():
            make_package(folder)
        package = open_package(NAME, 1, folder / "models" / NAME / "1")
        (row,) = one_row(package).values()
        onnx_file = package.path / package.manifest.signatures[0].onnx_file
        figures = measure(onnx_file, row, Path(scratch), options.rounds)
    result = {"measured": now(), "machine": describe(), "torch": torch.__version__, **figures}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8"), result), "utf-8")
    print(show(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
