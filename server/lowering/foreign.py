"""onnx2torch's converters, behind ours: which of them are right, and how one is asked for a single node.

Its registry is only read. Its walk over graphs is not used: it confuses the outputs of operators that have several.
Every entry of the list below was read and is run through the ONNX standard's node tests (docs/operators.md).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import onnx
from onnx2torch.node_converters.registry import get_converter
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from torch import nn

from server.lowering.graph import Graph, Node

# Operator -> (version of it that onnx2torch's converter was written for, newest version with the same meaning).
# Later versions up to the second only admit more element types.
REVIEWED: Final[Mapping[str, tuple[int, int]]] = {
    "Abs": (13, 13), "Acos": (7, 22), "Add": (14, 14), "And": (7, 7), "ArgMax": (13, 13), "ArgMin": (13, 13),
    "Asin": (7, 22), "Atan": (7, 22), "Ceil": (13, 13), "Celu": (12, 12), "Concat": (13, 13), "Cos": (7, 22),
    "Einsum": (12, 12), "Elu": (6, 22), "Equal": (13, 19), "Erf": (13, 13),
    "Exp": (13, 13), "Floor": (13, 13), "Greater": (13, 13), "GreaterOrEqual": (12, 16),
    "HardSigmoid": (6, 22), "HardSwish": (14, 22), "IsNaN": (13, 20), "LeakyRelu": (16, 16), "Less": (13, 13),
    "LessOrEqual": (12, 16), "Log": (13, 13), "LogSoftmax": (13, 13), "MatMul": (13, 13), "Mul": (14, 14),
    "Neg": (13, 13), "Not": (1, 1), "Or": (7, 7), "Reciprocal": (13, 13), "Relu": (14, 14), "Round": (11, 22),
    "Sigmoid": (13, 13), "Sign": (13, 13), "Sin": (7, 22), "Softmax": (13, 13), "Softplus": (1, 22),
    "Softsign": (1, 22), "Sqrt": (13, 13), "Sub": (14, 14), "Tan": (7, 22), "Tanh": (13, 13), "Where": (16, 16),
    "Xor": (7, 7),
}  # fmt: skip


# Their first version differs from the next by an attribute about memory, which says nothing of the result.
_AS_IN_6: Final = frozenset({
    "Abs", "Ceil", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh",
})  # fmt: skip


def supplies(node: Node) -> bool:
    """Whether onnx2torch's converter is used for a node that our table does not have."""
    return node.operator in REVIEWED and node.version <= REVIEWED[node.operator][1]


def convert(node: Node, graph: Graph) -> tuple[nn.Module, Sequence[str]]:
    """Ask onnx2torch for the module of one node.

    Returns:
        The module and the names of the values that its forward takes.

    Raises:
        GraphNotLowerable: It refuses the node.
    """
    alone = onnx.GraphProto(node=[node.proto])
    alone.initializer.extend(
        tensor for name in node.inputs if name and (tensor := graph.constant(name)) is not None and len(tensor.dims) < 2
    )
    version = min(node.version, REVIEWED[node.operator][0])
    if version == 1 and node.operator in _AS_IN_6:
        version = 6
    try:
        module, mapping = get_converter(node.operator, version)(OnnxNode(node.proto, node.name), OnnxGraph(alone))
    except NotImplementedError as error:
        raise node.refusal(f"onnx2torch refuses it: {error}") from error
    return module, tuple(mapping.inputs)
