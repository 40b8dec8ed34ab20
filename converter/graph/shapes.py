"""Shape arithmetic folded: a shape that is known, or follows from the input's, is a constant.

TensorFlow computes shapes at run time (`tf.shape(x)[0]`, then a stack, then a reshape) even where only the batch is
dynamic. ONNX's Reshape can copy a dimension and work one out, so that most of these become constants.
"""

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

from converter.graph.edit import Rewrite, Variables, add_constant, insert, integers, nodes_of, producer
from converter.graph.facts import Facts, constant_elements
from converter.graph.sizes import Product, Size, named, reshape_target
from converter.graph.unused import remove_unused

# By size the first value, in the order of the graph, that has it, and the axis.
Origins = Mapping[str, tuple[ir.Value, int]]


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    done = _fold_known(model, facts) + _fix_targets(model, facts) + _read_off(model, facts)
    remove_unused(model, variables)
    return done


def _fold_known(model: ir.Model, facts: Facts) -> int:
    """Put constants in place of integers that are the same in every run."""
    done = 0
    for node in list(model.graph):
        output = node.outputs[0]
        elements = facts.elements.get(output)
        if len(node.outputs) > 1 or elements is None or output.is_graph_output():
            continue
        known = [element for element in elements if isinstance(element, int)]
        if len(known) == len(elements) and (node.op_type != "Constant" or node.domain):
            dtype = facts.types[output].numpy()
            array = np.array(known, dtype).reshape([s for s in facts.shapes[output] if isinstance(s, int)])
            ir.convenience.replace_all_uses_with(output, add_constant(model, f"{output.name}/known", array))
            done += 1
    return done


def _fix_targets(model: ir.Model, facts: Facts) -> int:
    """Give reshapes a constant target where there is one."""
    done = 0
    for node in nodes_of(model, "Reshape"):
        source, output = node.inputs[0], node.outputs[0]
        if source is None or source not in facts.shapes or output not in facts.shapes:
            continue
        target = reshape_target(facts.shapes[source], facts.shapes[output])
        given = constant_elements(node.inputs[1])
        # A constant that gives a number is better than one that lets it be worked out.
        if target is None or (given is not None and (given == tuple(target) or -1 in target)):
            continue
        node.replace_input_with(1, add_constant(model, f"{output.name}/shape", integers(*target)))
        node.attributes.pop("allowzero", None)
        done += given is None
    return done


def _read_off(model: ir.Model, facts: Facts) -> int:
    """Read sizes off the first value that has them, where a shape is put together from others'."""
    origins = first_with_sizes(model, facts)
    done = 0
    for node in nodes_of(model, *_SHAPE_INPUT):
        index = _SHAPE_INPUT[node.op_type]
        given, output = node.inputs[index], node.outputs[0]
        if given is None or given.producer() is None or _is_read_off(given, origins):
            continue
        wanted = facts.shapes.get(output) if node.op_type == "Reshape" else facts.elements.get(given)
        known = [_readable(size, origins, output) for size in wanted or (None,)]
        if node.op_type == "Reshape" and known.count(None) == 1 and 0 not in known and wanted:
            known = [-1 if size is None else size for size in known]
        sizes = [size for size in known if size is not None]
        if len(sizes) == len(known):
            name = f"{output.name}/sizes"
            parts = [measured(model, node, size, origins, f"{name}/{axis}") for axis, size in enumerate(sizes)]
            node.replace_input_with(index, insert(node, "Concat", parts, name, axis=0))
            done += 1
    return done


def _readable(size: Size | None, origins: Origins, output: ir.Value) -> Size | None:
    """A size, if it is a number or a value has it before a certain one is computed."""
    known = isinstance(size, int) or (str(size) in origins and origins[str(size)][0] is not output)
    return size if known else None


_SHAPE_INPUT: Final = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0}


def first_with_sizes(model: ir.Model, facts: Facts) -> Origins:
    """Find where each dynamic size comes from."""
    origins: dict[str, tuple[ir.Value, int]] = {}
    computed = (output for node in model.graph for output in node.outputs)
    for value in (*model.graph.inputs, *computed):
        for axis, size in enumerate(facts.shapes.get(value, ())):
            if isinstance(size, Product) and size == named(str(size)):
                origins.setdefault(str(size), (value, axis))
    return origins


def measured(model: ir.Model, before: ir.Node, size: Size, origins: Origins, name: str) -> ir.Value:
    """Insert what gives a size as a tensor of one element: of equal sizes all read the same."""
    if isinstance(size, int):
        return add_constant(model, name, integers(size))
    value, axis = origins[str(size)]
    return insert(before, "Shape", [value], name, start=axis, end=axis + 1)


def _is_read_off(value: ir.Value, origins: Origins) -> bool:
    node = producer(value, "Concat")
    firsts = {origin for origin, _ in origins.values()}
    return node is not None and all(
        part is not None and (part.const_value is not None or _reads(part, firsts)) for part in node.inputs
    )


def _reads(value: ir.Value, firsts: Collection[ir.Value]) -> bool:
    node = producer(value, "Shape")
    return node is not None and node.inputs[0] in firsts


REWRITE: Final = Rewrite("shapes", "shapes that follow from the input's are constants", _apply)
