"""The few edits that rewrites are made of, on onnx-ir's graphs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.graph.facts import Facts
from server.arrays import Array

# By the name of an initializer, the names of the variables that it holds.
Variables = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A change of a model's graph that keeps what it computes.

    Attributes:
        name: For reports and for leaving it out.
        brings: What it is good for, in a phrase.
        apply: Changes the model in place, given what is known of it, and returns how often it found something to do:
            0 if it changed nothing. Initializers that hold variables keep their elements in their order.
    """

    name: str
    brings: str
    apply: Callable[[ir.Model, Facts, Variables], int]


def nodes_of(model: ir.Model, *operators: str) -> Iterator[ir.Node]:
    """The main graph's nodes of ONNX's own operators with these names, in order; the graph may change meanwhile."""
    for node in list(model.graph):
        if node.op_type in operators and not node.domain and node.graph is model.graph:
            yield node


def producer(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that computes a value, if it is one of ONNX's own operators with these names."""
    node = None if value is None else value.producer()
    return node if node is not None and not node.domain and node.op_type in operators else None


def only_use(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, if there is just one, and the value is no output of the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of a single element holds."""
    tensor = None if value is None or value.is_graph_input() else value.const_value
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    return float(tensor.numpy().reshape(()))


def add_constant(model: ir.Model, hint: str, array: Array) -> ir.Value:
    """Add an initializer."""
    name, number = hint, 1
    taken = {value.name for value in model.graph.inputs}
    while name in model.graph.initializers or name in taken:
        number += 1
        name = f"{hint}_{number}"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    model.graph.register_initializer(value)
    return value


def bypass(old: ir.Value, new: ir.Value) -> bool:
    """Let everything that reads one value read another; the node of the former stays until it is found to be unused.

    Returns:
        Whether it was possible: an output of the graph can only be replaced by what is computed for it alone.
    """
    if old.is_graph_output():
        if new.is_graph_output() or new.is_graph_input() or new.is_initializer() or new.producer() is None:
            return False
        name = old.name
        old.name = f"{name}_before"
        new.name = name
        new.type, new.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    return True


def insert(
    before: ir.Node, operator: str, inputs: Sequence[ir.Value | None], name: str, **attributes: int | float | list[int]
) -> ir.Value:
    """Put a new node in front of another and return its output."""
    node = ir.node(operator, inputs, attributes)
    node.name = name
    graph = before.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101 - rewrites look at nodes of graphs
    graph.insert_before(before, node)
    node.outputs[0].name = f"{name}:0"
    return node.outputs[0]


def integers(*elements: int) -> Array:
    """A shape, or axes, as ONNX's operators take them."""
    return np.array(elements, np.int64)
