"""Reshapes that undo or follow each other: one, or none."""

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from converter.graph.edit import (
    Rewrite,
    Variables,
    add_constant,
    bypass,
    insert,
    integers,
    nodes_of,
    only_use,
    producer,
)
from converter.graph.facts import Facts
from converter.graph.sizes import Product, Shape, reshape_target
from converter.graph.unused import remove_unused

# They keep the elements' order and change the shape.
RESHAPING: Final = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    done = 0
    for node in nodes_of(model, *RESHAPING):
        done += _shorten(model, facts, node)
    remove_unused(model, variables)
    return done


def _shorten(model: ir.Model, facts: Facts, node: ir.Node) -> bool:
    """Let a node reshape what the chain of reshapes before it began with, or leave it out."""
    output, source = node.outputs[0], node.inputs[0]
    wanted = facts.shapes.get(output)
    if wanted is None or source is None or output.is_graph_output():
        return False
    if source.is_initializer() and facts.shapes.get(source) != wanted:
        return _reshape_constant(node, source, wanted)
    for first in _chain(facts, source):
        if facts.shapes.get(first) == wanted:
            return bypass(output, first)
    return any(_read(model, facts, node, first, wanted) for first in list(_chain(facts, source))[1:])


def _chain(facts: Facts, value: ir.Value) -> Iterator[ir.Value]:
    """A value, and what it was reshaped from, back to the first."""
    yield value
    while (before := producer(value, *RESHAPING)) is not None and before.inputs[0] in facts.shapes:
        assert before.inputs[0] is not None  # noqa: S101 - it has a shape
        value = before.inputs[0]
        yield value


def _read(model: ir.Model, facts: Facts, node: ir.Node, source: ir.Value, wanted: Shape) -> bool:
    """Let a node reshape another value with the same elements."""
    target = reshape_target(facts.shapes[source], wanted)
    if target is None:
        if _copies_nothing(facts, node):
            node.replace_input_with(0, source)
            return True
        return False
    shape = add_constant(model, f"{node.outputs[0].name}/shape", integers(*target))
    node.op_type = "Reshape"
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(0, source)
    node.replace_input_with(1, shape)
    return True


def _reshape_constant(node: ir.Node, source: ir.Value, wanted: Shape) -> bool:
    """Give a constant that is read here alone the other shape; what lies in a file of its own stays there."""
    tensor = source.const_value
    sizes = [size for size in wanted if isinstance(size, int)]
    if tensor is None or only_use(source) is not node or source.is_graph_input() or len(sizes) != len(wanted):
        return False
    if isinstance(tensor, ir.ExternalTensor) or tensor.dtype == ir.DataType.STRING:
        return False
    source.const_value = ir.tensor(tensor.numpy().reshape(sizes), dtype=tensor.dtype, name=source.name)
    source.shape = ir.Shape(sizes)
    return bypass(node.outputs[0], source)


def _copies_nothing(facts: Facts, node: ir.Node) -> bool:
    """Whether a Reshape's target means the same whatever the shape before."""
    target = facts.elements.get(node.inputs[1]) if node.op_type == "Reshape" and node.inputs[1] is not None else None
    return target is not None and None not in target and 0 not in target


def reshape(
    model: ir.Model, before: ir.Node, source: ir.Value, *, shape: Shape, wanted: Shape, name: str
) -> ir.Value | None:
    """Insert a Reshape from one shape to another of as many elements.

    Args:
        model: Its constants.
        before: The node in front of which it goes.
        source: What to reshape.
        shape: Its shape.
        wanted: The shape to give.
        name: Of the new value.

    Returns:
        The value, or None where two dimensions would have to be worked out at run time.
    """
    target = reshape_target(shape, wanted)
    if target is not None:
        return insert(before, "Reshape", [source, add_constant(model, f"{name}/shape", integers(*target))], name)
    parts: list[ir.Value] = []
    unknown = 0
    for axis, size in enumerate(wanted):
        part = f"{name}/size_{axis}"
        if isinstance(size, Product) and size in shape:
            start = shape.index(size)
            parts.append(insert(before, "Shape", [source], part, start=start, end=start + 1))
        else:
            unknown += isinstance(size, Product)
            parts.append(add_constant(model, part, integers(size if isinstance(size, int) else -1)))
    if unknown > 1:
        return None
    return insert(before, "Reshape", [source, insert(before, "Concat", parts, f"{name}/shape", axis=0)], name)


REWRITE: Final = Rewrite("reshapes", "reshapes that follow each other are one, or none", _apply)
