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
from pathlib import Path

import numpy as np

from protos.segue import package_pb2
from protos.tensorflow import tensor_pb2
from server.arrays import Array
from server.signatures import ServedSignature
from server.wire.dtypes import of_dtype
from server.wire.encoding import tensor_to_proto
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
            infos[alias].name = alias
            infos[alias].dtype = tensor_pb2.DataType.ValueType(of_dtype(array.dtype).number)
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
        signature = signature_of(inputs)
        parsed = parse_predict_request(data)
        outputs = list(inputs.items())
        found[name] = {
            "parse": best(lambda data=data: parse_predict_request(data)),  # type: ignore[misc]  # mypy: lambdas
            "call": best(lambda s=signature, p=parsed: s.call(p.inputs, p.output_filter)),  # type: ignore[misc]
            "encode": best(
                lambda outputs=outputs: encode_predict_response(  # type: ignore[misc]
                    outputs, name="model", version=1, signature_name="serving_default"
                )
            ),
        }
        assert tensor_to_proto(outputs[0][1]).IsInitialized()  # noqa: S101
    return found


def main() -> None:
    """Measure, print, write."""


if __name__ == "__main__":
    main()
