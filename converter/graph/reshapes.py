"""Reshapes that undo or follow each other: one, or none."""

from typing import Final

import onnx_ir as ir

from converter.graph.edit import Rewrite, add_constant, bypass, integers, nodes_of, only_use, producer
from converter.graph.facts import Facts, gather_facts
from converter.graph.sizes import reshape_target
from converter.graph.unused import remove_unused

# They keep the elements' order and change the shape.
RESHAPING: Final = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


def _apply(model: ir.Model, kept: frozenset[str]) -> int:
    facts = gather_facts(model)
    done = 0
    for node in nodes_of(model, *RESHAPING):
        done += _shorten(model, facts, node)
    remove_unused(model, kept)
    return done


def _shorten(model: ir.Model, facts: Facts, node: ir.Node) -> bool:
    """Let a node reshape what the chain of reshapes before it began with, or leave it out."""
    output = node.outputs[0]
    wanted = facts.shapes.get(output)
    source = node.inputs[0]
    if wanted is None or source is None or output.is_graph_output():
        return False
    if facts.shapes.get(source) == wanted:
        return bypass(output, source)
    first = source
    while (before := producer(first, *RESHAPING)) is not None and before.inputs[0] in facts.shapes:
        assert before.inputs[0] is not None  # noqa: S101 - it has a shape
        first = before.inputs[0]
        if facts.shapes[first] == wanted:
            return bypass(output, first)
        target = reshape_target(facts.shapes[first], wanted)
        if target is not None and (node.op_type != "Reshape" or only_use(source) is node):
            _reshape(model, node, first, target)
            return True
    return False


def _reshape(model: ir.Model, node: ir.Node, source: ir.Value, target: list[int]) -> None:
    shape = add_constant(model, f"{node.outputs[0].name}/shape", integers(*target))
    node.op_type = "Reshape"
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(0, source)
    node.replace_input_with(1, shape)


REWRITE: Final = Rewrite("reshapes", "reshapes that follow each other are one, or none", _apply)
