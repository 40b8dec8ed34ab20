"""Casts cancelled: to the dtype that is there, or there and back without loss."""

from typing import Final

import onnx_ir as ir

from converter.graph.edit import Rewrite, Variables, bypass, nodes_of, producer
from converter.graph.facts import Facts
from converter.graph.unused import remove_unused

# Dtypes that hold every value of another.
_HOLDS: Final = {
    ir.DataType.INT32: {ir.DataType.INT64, ir.DataType.DOUBLE},
    ir.DataType.BOOL: {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.UINT8: {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.INT8: {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.FLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.BFLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.FLOAT: {ir.DataType.DOUBLE},
}


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    types = facts.types
    done = 0
    for node in nodes_of(model, "Cast"):
        source, output = node.inputs[0], node.outputs[0]
        if source is None or source not in types or output not in types:
            continue
        if types[source] == types[output]:
            done += bypass(output, source)
            continue
        before = producer(source, "Cast")
        first = None if before is None else before.inputs[0]
        if first is None or first not in types or types[source] not in _HOLDS.get(types[first], ()):
            continue
        if types[first] == types[output]:
            done += bypass(output, first)
        else:
            node.replace_input_with(0, first)
            done += 1
    remove_unused(model, variables)
    return done


REWRITE: Final = Rewrite("casts", "no cast that loses nothing and is undone", _apply)
