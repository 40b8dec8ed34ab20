"""What reading a request, checking it against a signature and writing a reply cost: `python -m benchmarks.wire`.

Small requests of the usual kinds, in microseconds per request, the best of many short rounds. With `--before CHECKOUT`
another checkout of this repository is measured beside this one, in rounds that alternate.
"""

import argparse
import json
import os
import subprocess
import sys
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from protos.segue import package_pb2
from protos.tensorflow import signature_pb2, tensor_pb2
from server.arrays import Array
from server.signatures import ServedSignature
from server.wire.dtypes import of_dtype
from server.wire.requests import parse_predict_request
from server.wire.responses import encode_predict_request, encode_predict_response

RESULT = Path(__file__).parent / "results" / "wire.json"
LOOPS = 2_000

Figures = dict[str, dict[str, float]]


def cases() -> dict[str, dict[str, Array]]:
    """Inputs by alias, by what they are an example of."""
    return {
        "two float (1,4)": {"x": np.ones((1, 4), np.float32), "bias": np.ones((1, 4), np.float32)},
        "float (1,224,224,3)": {"image": np.ones((1, 224, 224, 3), np.float32)},
        "three int64 (1,128)": {a: np.arange(128).reshape(1, 128) * 90 for a in ("ids", "mask", "types")},
        "ten float (1,1)": {f"feature_{n}": np.ones((1, 1), np.float32) for n in range(10)},
        "string (8,)": {"text": np.array([b"some words of text"] * 8, object)},
    }


def signature_of(inputs: dict[str, Array]) -> ServedSignature:
    """A signature that takes these inputs, the first dimension being free, and answers with the same."""
    message = package_pb2.Signature(name="serving_default", onnx_file="model.onnx")
    definition = message.signature_def
    for alias, array in inputs.items():
        for infos in (definition.inputs, definition.outputs):
            dtype = tensor_pb2.DataType.Name(tensor_pb2.DataType.ValueType(of_dtype(array.dtype).number))
            infos[alias].CopyFrom(signature_pb2.TensorInfo(name=alias, dtype=dtype))
            for size in (-1, *array.shape[1:]):
                infos[alias].tensor_shape.dim.add(size=size)
        message.inputs.add(alias=alias, onnx_name=alias)
        message.outputs.add(alias=alias, onnx_name=alias)
    return ServedSignature(message)


def best(function: Callable[[], object]) -> float:
    """Microseconds per call."""
    return min(timeit.repeat(function, number=LOOPS, repeat=7)) / LOOPS * 1e6


def figures() -> Figures:
    """Microseconds of each step, by case."""
    found: Figures = {}
    for name, inputs in cases().items():
        data = encode_predict_request(inputs, name="model")
        call = partial(signature_of(inputs).call, parse_predict_request(data).inputs)
        encode = partial(
            encode_predict_response, list(inputs.items()), name="model", version=1, signature_name="serving_default"
        )
        found[name] = {"parse": best(partial(parse_predict_request, data)), "call": best(call), "encode": best(encode)}
    return found


def figures_of(checkout: Path) -> Figures:
    """The same of a checkout of this repository, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, str(Path(__file__).resolve()), "--print"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    found: Figures = json.loads(done.stdout)
    return found


def lowest(rounds: list[Figures]) -> Figures:
    """The best of all rounds for each figure."""
    return {
        case: {step: round(min(each[case][step] for each in rounds), 2) for step in steps}
        for case, steps in rounds[0].items()
    }


def _cell(steps: dict[str, float]) -> str:
    return f"{' + '.join(map(str, steps.values()))} = {sum(steps.values()):.1f}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--print", action="store_true", help="print one round as JSON and write nothing")
    options = parser.parse_args()
    if options.print:
        print(json.dumps(figures()))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = {"now": here} | ({"before": options.before.resolve()} if options.before else {})
    rounds: dict[str, list[Figures]] = {name: [] for name in checkouts}
    for _ in range(options.rounds):
        for name, checkout in checkouts.items():
            rounds[name].append(figures_of(checkout))
    best_of = {name: lowest(each) for name, each in rounds.items()}
    print("| request | " + " | ".join(f"{name}: parse + call + encode, µs" for name in best_of) + " |")
    print("|---|" + "---|" * len(best_of))
    for case in cases():
        cells = [_cell(found[case]) for found in best_of.values()]
        print(f"| {case} | " + " | ".join(cells) + " |")
    RESULT.write_text(json.dumps({"machine": describe(), "microseconds": best_of}, indent=1) + "\n")


if __name__ == "__main__":
    main()
