"""Speed and error of every way to run one model.

`python -m benchmarks.backends --model vit --batches 1,4,16` measures, writes benchmarks/results/backends.json and
prints the table. Contenders: TensorFlow's SavedModel signature, our backends by their names, and transformers' native
PyTorch model, eager and compiled. Each is a process of its own, one runs at a time, and they take turns, so that what
else the machine does falls on all alike. `--table` prints the table of the JSON that is there. Nothing else should run.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.backends.children import Contenders, alternate
from benchmarks.backends.errors import errors
from benchmarks.backends.figures import natives, paired_ratio, references, summarise, table
from benchmarks.backends.models import MODELS, make
from benchmarks.machine import describe

RESULT: Final = Path(__file__).parents[1] / "results" / "backends.json"
TENSORFLOW: Final = "tensorflow"
DEFAULT: Final = (
    TENSORFLOW, "onnxruntime-cpu", "openvino-cpu", "openvino-cpu-bf16", "torch-cpu", "torch-cpu-bf16", "native-eager",
    "native-compiled", "native-eager-bf16", "native-compiled-bf16", "native-autocast-bf16",
)  # fmt: skip


def measure(folder: Path, model: str, names: Sequence[str], batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """All figures: a row for each batch, the errors, and why a contender is missing."""
    make(folder, model, batches)
    with Contenders(names, model, folder) as contenders:
        rows = []
        for batch in batches:
            samples = alternate(contenders, batch, rounds)
            figures = summarise(samples)
            pairs = references(list(samples))
            for name, figure in figures.items():
                for key, reference in (("tensorflow", TENSORFLOW), ("native", pairs.get(name, ""))):
                    if reference in samples and reference != name:
                        ratio = paired_ratio(samples[reference], samples[name])
                        figure[key] = [ratio.median, ratio.low, ratio.high]
            rows.append({"batch": batch, "contenders": figures})
        answers = {name: contender.answer(max(batches)) for name, contender in contenders.here.items()}
        return {
            "model": model,
            "rounds": rounds,
            "rows": rows,
            "errors": errors(answers, TENSORFLOW),
            "load_seconds": {name: contender.load_seconds for name, contender in contenders.here.items()},
            "absent": contenders.absent,
        }


def show(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    lines = [
        table(result["rows"]),
        "",
        natives(result["rows"]),
        "",
        "| contender | largest difference to TensorFlow | root mean square |",
    ]
    lines.append("|---|---|---|")
    lines += [f"| {name} | {e['largest']:.2e} | {e['rms']:.2e} |" for name, e in result["errors"].items()]
    lines += [f"\nNot here: {reason}" for reason in result["absent"].values()]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="vit")
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--backends", default=",".join(DEFAULT), help="contenders by name")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="keep what is made of the model here, or use what is there")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="print the table of the result that is there")
    options = parser.parse_args()
    if not options.table:
        batches = [int(batch) for batch in options.batches.split(",")]
        with ExitStack() as stack:
            folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            result = measure(folder.absolute(), options.model, options.backends.split(","), batches, options.rounds)
        options.result.parent.mkdir(exist_ok=True)
        options.result.write_text(json.dumps({"machine": describe(), **result}, indent=1) + "\n")
    print(show(json.loads(options.result.read_text())))


if __name__ == "__main__":
    main()
