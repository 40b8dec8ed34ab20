"""The PyTorch path on a GPU beside a native model: `python -m benchmarks.gpu.pytorch_path --out RESULT.json`.

From ViT-Base's graph without its weights and numbers made of a seed, without TensorFlow and without a network; what it
needs is in docs/gpu.md. It checks and measures, in this order

    weights     parameter counts          answers   equality in float32       errors   in TF32, bfloat16, float16
    graphs      breaks, and one for all   builds    compiled ahead of time    speed    beside the native model
    served      the server's own way      compiled  torch.compile's speed

writes the JSON after each step, and prints tables at the end. It ends itself in time (`--seconds`), with what it has.
`--device cpu --layers 2` does the same without a GPU.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.comparison import Comparison, Scope
from benchmarks.gpu.machine import describe
from benchmarks.gpu.report import show
from benchmarks.gpu.steps import Steps

_SERVED_S = 60  # what loading and running one model may take in a process of its own
_COMPILED_S = 90


def measure(check: Comparison, steps: Steps) -> dict[str, Any]:
    """Take all steps; what each gave, by its name."""
    scope = check.scope
    steps.run("machine", lambda: {**describe(), "device": scope.device, **_gpu(scope)})
    steps.result["scope"] = {
        "layers": scope.layers, "precisions": scope.precisions, "batches": scope.batches, "rounds": scope.rounds,
    }  # fmt: skip
    if not steps.run("weights", check.make):
        return steps.result
    steps.run("graphs", check.graphs)
    steps.run("answers", check.answers)
    # Everything after the builds takes about two minutes.
    steps.run("builds", lambda: check.build(max(steps.left() * 0.65, 1)))
    steps.run("errors", check.errors)
    for precision in scope.precisions:
        steps.run(f"speed {precision}", lambda precision=precision: check.speed(precision))  # type: ignore[misc] # a string
    steps.run("served", lambda: check.served(_SERVED_S))
    for precision in scope.precisions:
        if precision != "tf32":
            steps.run(
                f"compiled {precision}",
                lambda precision=precision: check.compiled(precision),  # type: ignore[misc] # a string
                needs=_COMPILED_S,
            )
    return steps.result


def _gpu(scope: Scope) -> dict[str, str]:
    if scope.device == "cpu":
        return {}
    found = torch.cuda.get_device_properties(0)
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call] # torch has no type for it
    return {"torch_cuda": str(torch.version.cuda), "torch_gpu": found.name, "cudnn": str(cudnn)}


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON file")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--layers", type=int, default=12, choices=range(1, 13), metavar="1-12")
    parser.add_argument("--precisions", help="with commas; by default fp32,tf32,bf16,fp16, on a processor fp32,bf16")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=64, help="for errors")
    parser.add_argument("--native", choices=["transformers", "plain"], default="", help="by default what is there")
    parser.add_argument("--seconds", type=float, default=465, help="when it ends at the latest")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "torch finds no GPU: it needs NVIDIA's driver and a torch with CUDA; or try --device cpu\n")
    usual = "fp32,tf32,bf16,fp16" if options.device == "cuda" else "fp32,bf16"
    scope = Scope(
        options.device, options.layers, tuple((options.precisions or usual).split(",")),
        tuple(int(batch) for batch in options.batches.split(",")), options.rounds, options.images, options.native,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="segue-gpu-", ignore_cleanup_errors=True) as folder:
        check = Comparison(scope, Path(folder))

        def late() -> None:
            print(show(steps.result))
            check.stop()

        steps = Steps(options.out, options.seconds, at_end=late)
        try:
            print(show(measure(check, steps)))
        finally:
            check.stop()
            steps.end()


if __name__ == "__main__":
    main()
