"""Operators on unsigned numbers of 16 bits and more, for which torch has little: computed as int64, or refused.

Sums and products wrap around alike, so what comes back is right modulo the width of the type. uint64 is the same bits
as int64; where it matters which of two numbers is greater, the sign bit is flipped, and where neither helps the node is
refused while lowering.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import onnx
import torch
from onnx import TensorProto

from server.lowering.graph import Graph, Node
from server.lowering.operators.integers import as_int64, ordered_int64

_WIDE: Final = frozenset({TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64})
# Their results depend on the order of numbers alone.
_ORDERED: Final = frozenset({"ArgMax", "ArgMin", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
# Made of sums and products, or of moving elements.
_RING: Final = frozenset({
    "Abs", "Add", "CumSum", "Einsum", "Gemm", "MatMul", "Mul", "NonZero", "Pow", "ReduceL1", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Scatter", "ScatterElements", "ScatterND", "Sub", "Sum", "Trilu",
})  # fmt: skip
# What is another operator where nothing is below zero.
_PLAIN: Final = {"Abs": "Identity", "ReduceL1": "ReduceSum"}
# Right for numbers that int64 holds.
_BOUNDED: Final = frozenset({"PRelu", "ReduceL2", "ReduceMean", "Sign"})


def is_widened(node: Node, graph: Graph) -> bool:
    """Whether a node is computed as int64."""
    return node.operator in _ORDERED | _RING | _BOUNDED and any(
        graph.type_of(name).dtype in _WIDE for name in node.inputs
    )


def widened(
    node: Node, graph: Graph, convert: Callable[[Callable[[torch.Tensor], torch.Tensor], str], str]
) -> tuple[Node, bool]:
    """The node with its unsigned inputs as int64.

    Args:
        node: The node.
        graph: Its graph.
        convert: Of a function and a value's name writes the call of that function, and says what its value is called.

    Returns:
        The node, and whether its first output has to be brought back.

    Raises:
        GraphNotLowerable: It is about uint64, and neither bits nor order are enough.
    """
    whole = any(graph.type_of(name).dtype == TensorProto.UINT64 for name in node.inputs)
    compares = node.operator in _BOUNDED or node.attributes.get("reduction", "none") in {"max", "min"}
    if whole and compares:
        raise node.refusal("torch has no uint64 of which it knows which is greater")
    function = ordered_int64 if node.operator in _ORDERED else as_int64
    names = tuple(convert(function, name) if graph.type_of(name).dtype in _WIDE else name for name in node.inputs)
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend(names)
    operator = _PLAIN.get(node.operator, node.operator)
    return replace(node, operator=operator, inputs=names, proto=proto), graph.type_of(node.outputs[0]).dtype in _WIDE
