"""Graphs to compile, and their specs: small ones, since each takes the compiler some ten seconds."""

from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from server.arrays import Array
from server.backends.interface import GraphSpec, TensorPort
from server.wire.dtypes import of_dtype
from tests.server.lowering.graphs import model, numbers, whole

_BFLOAT16 = ("bfloat16[n,2] b, ", "bfloat16[n,2] b2, ", "b2 = Mul(b, b)")

# A perceptron, an attention, whole numbers, both short floats, a truth value, numbers of rank 0, and an input
# whose size must be a multiple of four.
_WORKBENCH = """g (float[n,3] x, int64[n] i, float[n,t,8] q, float16[n,2] h, bfloat16[n,2] b, float s, float[k] z)
    => (float[n,4] y, int64[n] j, float[n,t,8] a, float16[n,2] h2, bfloat16[n,2] b2, float total, bool[n] positive,
        float[g,4] rows) {
    m = MatMul(x, w) c = Add(m, bias) y = Relu(c) j = Add(i, i) positive = Greater(i, zero)
    k = Transpose<perm=[0,2,1]>(q) e = MatMul(q, k) p = Softmax<axis=-1>(e) a = MatMul(p, q)
    h2 = Add(h, h) b2 = Mul(b, b) d = ReduceSum<keepdims=0>(y) total = Mul(d, s)
    rows = Reshape(z, four) }"""


def workbench(*, bfloat16: bool = True) -> onnx.ModelProto:
    """Many kinds of ports in one graph; ONNX Runtime has no bfloat16 product, so that part can be left out."""
    text = _WORKBENCH
    if not bfloat16:
        for part in _BFLOAT16:
            text = text.replace(part, "")
    return model(text, w=numbers(3, 4), bias=numbers(4, seed=1), zero=np.array(0, np.int64), four=whole([-1, 4]))


def workbench_feeds(batch: int, length: int, seed: int = 0) -> dict[str, Array]:
    """Inputs of the workbench."""
    random = np.random.default_rng(seed)
    return {
        "x": numbers(batch, 3, seed=seed),
        "i": random.integers(-5, 5, batch),
        "q": numbers(batch, length, 8, seed=seed + 1),
        "h": numbers(batch, 2, seed=seed + 2).astype(np.float16),
        "b": numbers(batch, 2, seed=seed + 3).astype(ml_dtypes.bfloat16),
        "s": np.array(random.standard_normal(), np.float32),
        "z": numbers(4 * batch, seed=seed + 4),
    }


def affine(scale: float = 2) -> onnx.ModelProto:
    """Y = scale * x + x."""
    text = "g (float[n,3] x) => (float[n,3] y) { m = Mul(x, scale) y = Add(m, x) }"
    return model(text, scale=np.array(scale, np.float32))


def spec(proto: onnx.ModelProto, path: Path) -> GraphSpec:
    """Write a graph, and say what a manifest would."""
    onnx.save(proto, path)
    return GraphSpec(path, ports(proto.graph.input), ports(proto.graph.output))


def ports(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorPort, ...]:
    """The ports of a graph as a manifest lists them."""
    return tuple(TensorPort(one.name, _number(one.type.tensor_type.elem_type)) for one in values)


def _number(kind: int) -> int:
    return of_dtype(np.dtype(helper.tensor_dtype_to_np_dtype(kind))).number
