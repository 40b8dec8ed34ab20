"""Which values of a graph are shapes: numbers that the host computes while tensors stay on the device.

A value is one if it follows from the shapes of tensors and from small constants alone, through operators that
`server.lowering.host` has. Whole numbers and truth values then always stay on the host; other numbers only where an
operator needs them there (the scales of a Resize), since what is left of them is arithmetic on tensors.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Final

from onnx import TensorProto

from server.lowering.graph import Graph, Node, elements
from server.lowering.host import HOST
from server.lowering.table import Operator

_MAX_CONSTANT: Final = 64  # elements; a longer list of numbers is data, not a shape
_SOURCES: Final = frozenset({"Shape", "Size"})
# Their results have the length that an input says: only a length that is known makes a tuple.
_SIZED: Final = frozenset({"ConstantOfShape", "Expand", "Range", "Tile"})
# Operators that take these inputs on the host if they are there, and as tensors if not.
_WELCOME: Final[Mapping[str, frozenset[int]]] = {"If": frozenset({0}), "Loop": frozenset({0, 1})}
_WHOLE: Final = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})
_REAL: Final = frozenset({TensorProto.FLOAT})  # the precision that host.py computes in


def host_values(graph: Graph, table: Mapping[str, Operator], outer: frozenset[str] = frozenset()) -> frozenset[str]:
    """The names of the values that the host computes.

    Args:
        graph: The graph.
        table: Operators, for what they need on the host.
        outer: For a body, those of the graph around it.
    """
    able = set(outer)
    for node in graph.nodes:
        if _is_able(node, graph, able):
            able.update(node.outputs)
    found = set(outer)
    needed: set[str] = set()
    for node in reversed(graph.nodes):
        whole = graph.type_of(node.outputs[0]).dtype in _WHOLE
        if node.outputs[0] in able and (whole or node.outputs[0] in needed):
            found.update(node.outputs)
            needed.update(node.inputs)
        else:
            entry = table.get(node.operator)
            wanted = entry.host if entry is not None else _WELCOME.get(node.operator, frozenset())
            needed.update(name for index, name in enumerate(node.inputs) if index in wanted)
    return frozenset(found)


def _is_able(node: Node, graph: Graph, able: set[str]) -> bool:
    if node.operator not in HOST or len(node.outputs) != 1 or not set(node.attributes) <= _attributes(node.operator):
        return False
    kind = graph.type_of(node.outputs[0])
    if kind.shape is None or len(kind.shape) > 1 or kind.dtype not in _WHOLE | _REAL:
        return False
    if node.operator in _SOURCES:
        return True
    if node.operator in _SIZED and not all(isinstance(dim, int) for dim in kind.shape):
        return False
    return all(not name or name in able or is_small(graph, name) for name in node.inputs)


@cache
def _attributes(operator: str) -> frozenset[str]:
    """The attributes that an operator's function on the host takes."""
    return frozenset(inspect.signature(HOST[operator]).parameters)


def is_small(graph: Graph, name: str) -> bool:
    """Whether a value is a constant that can be written as a number or a short tuple of numbers."""
    tensor = graph.constant(name)
    return (
        tensor is not None
        and len(tensor.dims) <= 1
        and elements(tensor) <= _MAX_CONSTANT
        and tensor.data_type in _WHOLE | _REAL
    )
