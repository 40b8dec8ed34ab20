"""Speed and error of every way to run one model.

`python -m benchmarks.backends --model vit --batches 1,4,16` measures, writes benchmarks/results/backends.json and the
tables of docs/backends.md and README.md, and prints what is to be shown and whether it is. Contenders: TensorFlow's
SavedModel signature, our backends by their names, and transformers' native PyTorch model, eager and compiled. Each is a
process of its own, one runs at a time, and they take turns, so that what else the machine does falls on all alike.
`--table` makes the tables of the JSON that is there. The exit code is 1 if a claim is missed. Nothing else should run.
"""

import argparse
import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.backends.children import Contenders, alternate
from benchmarks.backends.documents import show, write
from benchmarks.backends.errors import errors
from benchmarks.backends.figures import paired_ratio, references, summarise
from benchmarks.backends.judge import verdicts
from benchmarks.backends.models import MODELS, make
from benchmarks.machine import describe, now
from benchmarks.verdict import tell
from server.backends.catalogue import processor_flags

RESULT: Final = Path(__file__).parents[1] / "results" / "backends.json"
TENSORFLOW: Final = "tensorflow"
DEFAULT: Final = (
    TENSORFLOW, "onnxruntime-cpu", "openvino-cpu", "openvino-cpu-bf16", "torch-cpu", "torch-cpu-bf16", "native-eager",
    "native-compiled", "native-eager-bf16", "native-compiled-bf16", "native-autocast-bf16",
    "native-compiled-autocast-bf16",
)  # fmt: skip
_LIBRARIES: Final = ("torch", "tensorflow", "onnxruntime", "onnxruntime-gpu", "openvino", "transformers")
_FLAGS: Final = frozenset({"avx512f", "avx512_bf16", "amx_tile", "amx_bf16"})


def measure(folder: Path, model: str, names: Sequence[str], batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """All figures: a row for each batch, the errors, and why a contender is missing."""
    make(folder, model, batches)
    with Contenders(names, model, folder) as contenders:
        rows = [{"batch": batch, "contenders": compare(alternate(contenders, batch, rounds))} for batch in batches]
        answers = {name: contender.answer(max(batches)) for name, contender in contenders.here.items()}
        return {
            "model": model,
            "rounds": rounds,
            "rows": rows,
            "errors": errors(answers, TENSORFLOW),
            "load_seconds": {name: contender.load_seconds for name, contender in contenders.here.items()},
            "absent": contenders.absent,
        }


def compare(samples: dict[str, list[float]]) -> dict[str, Any]:
    """The contenders' figures, with their ratios to TensorFlow and to the native models that they are compared with.

    Args:
        samples: Seconds of each round, by contender.
    """
    figures = summarise(samples)
    pairs = references(list(samples))
    if TENSORFLOW in samples:
        pairs[TENSORFLOW] = {name: TENSORFLOW for name in samples if name != TENSORFLOW}
    for key, named in pairs.items():
        for name, reference in named.items():
            ratio = paired_ratio(samples[reference], samples[name])
            figures[name][key] = [ratio.median, ratio.low, ratio.high]
    return figures


def surroundings() -> dict[str, Any]:
    """What decides these figures beside the machine: when it was, the libraries, and what the processor can do."""
    versions = {}
    for name in _LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"measured": now(), "versions": versions, "flags": sorted(_FLAGS & processor_flags())}


def main() -> int:
    """Measure, write, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="vit")
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--backends", default=",".join(DEFAULT), help="contenders by name")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="keep what is made of the model here, or use what is there")
    parser.add_argument("--result", type=Path, default=RESULT, help="another file leaves the documents as they are")
    parser.add_argument("--table", action="store_true", help="make the tables of the result that is there")
    options = parser.parse_args()
    if not options.table:
        batches = [int(batch) for batch in options.batches.split(",")]
        with ExitStack() as stack:
            folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            result = measure(folder.absolute(), options.model, options.backends.split(","), batches, options.rounds)
        options.result.parent.mkdir(exist_ok=True)
        document = {"machine": describe(), **surroundings(), **result}
        options.result.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    result = json.loads(options.result.read_text("utf-8"))
    if options.result == RESULT:
        write(result)
    print(show(result), end="\n\n")
    return tell(verdicts(result))


if __name__ == "__main__":
    sys.exit(main())
