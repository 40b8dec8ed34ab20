"""Small ONNX files for tests of backends, written in ONNX's own text form."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from server.arrays import Array
from server.backends.interface import GraphSpec, TensorPort

DTYPES: Mapping[int, int] = {
    onnx.TensorProto.FLOAT: 1, onnx.TensorProto.DOUBLE: 2, onnx.TensorProto.INT32: 3, onnx.TensorProto.UINT8: 4,
    onnx.TensorProto.INT16: 5, onnx.TensorProto.INT8: 6, onnx.TensorProto.STRING: 7, onnx.TensorProto.INT64: 9,
    onnx.TensorProto.BOOL: 10, onnx.TensorProto.BFLOAT16: 14, onnx.TensorProto.UINT16: 17,
    onnx.TensorProto.FLOAT16: 19, onnx.TensorProto.UINT32: 22, onnx.TensorProto.UINT64: 23,
}  # fmt: skip
"""tensorflow.DataType by ONNX's number."""


def write_graph(folder: Path, text: str, constants: Mapping[str, Array] | None = None, *, opset: int = 18) -> GraphSpec:
    """Write a graph such as "g (float[B] x) => (float[B] y) {y = Add(x, c)}" and say what it is."""
    model = onnx.parser.parse_model(f'<ir_version: {8 if opset < 20 else 10}, opset_import: ["": {opset}]>\n{text}')
    for name, value in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    onnx.save(model, path)
    return spec_of(path)


def spec_of(path: Path) -> GraphSpec:
    """The ports that an ONNX file has."""
    graph = onnx.load(path, load_external_data=False).graph
    inputs, outputs = (
        tuple(TensorPort(port.name, DTYPES[port.type.tensor_type.elem_type]) for port in ports)
        for ports in (graph.input, graph.output)
    )
    return GraphSpec(path, inputs, outputs, digest="0" * 64)


def heavy(folder: Path, width: int = 1024, layers: int = 12) -> GraphSpec:
    """A chain of matrix products: weights of `layers` x `width`^2 floats."""
    weights = np.eye(width, dtype=np.float32)
    steps = " ".join(f"y{i} = MatMul({'x' if i == 0 else f'y{i - 1}'}, w{i})" for i in range(layers))
    text = f"g (float[B,{width}] x) => (float[B,{width}] y{layers - 1}) {{{steps}}}"
    return write_graph(folder, text, {f"w{i}": weights for i in range(layers)})


class Gap:
    """The longest time for which a thread that wanted to run Python could not, and how often it did."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.ticks = 0


@contextmanager
def ticking() -> Iterator[Gap]:
    """Count in another thread, which goes on only while the GIL is let go."""
    gap, over = Gap(), threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not over.wait(1e-3):
            now = time.perf_counter()
            gap.longest, gap.ticks, last = max(gap.longest, now - last), gap.ticks + 1, now

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield gap
    finally:
        over.set()
        thread.join()
