"""Operators that tf2onnx lacks, written as tf2onnx handlers: `HANDLERS` maps TensorFlow's operator to each."""

from collections.abc import Callable
from typing import Final

import numpy as np
from onnx import TensorProto
from tf2onnx import utils

from converter.worker.foreign import ConverterGraph, ConverterNode


def erfc(ctx: ConverterGraph, node: ConverterNode, name: str, args: list[str]) -> ConverterNode:  # noqa: ARG001 - tf2onnx calls every handler like this
    """Write Erfc(x) as 1 - Erf(x), in float32.

    TensorFlow lowers exact GELU to x/2 * Erfc(-x/√2). For large x the difference loses relative precision, but its
    absolute error stays within float32's 6e-8, and GELU multiplies it by an x for which Erfc has long been 0 or 2.
    ONNX Runtime has Erf for float32 only.
    """
    dtype = ctx.get_dtype(node.output[0])
    shape = ctx.get_shape(node.output[0])
    source = node.input[0]
    ctx.remove_node(node.name)
    if dtype != TensorProto.FLOAT:
        source = ctx.make_node("Cast", [source], attr={"to": TensorProto.FLOAT}, dtypes=[TensorProto.FLOAT]).output[0]
    erf = ctx.make_node("Erf", [source], shapes=[shape], dtypes=[TensorProto.FLOAT])
    one = ctx.make_const(utils.make_name(f"{name}/one"), np.array(1, np.float32))
    final = {"outputs": [node.output[0]], "name": name}
    if dtype == TensorProto.FLOAT:
        return ctx.make_node("Sub", [one.output[0], erf.output[0]], shapes=[shape], dtypes=[dtype], **final)
    difference = ctx.make_node("Sub", [one.output[0], erf.output[0]], shapes=[shape], dtypes=[TensorProto.FLOAT])
    return ctx.make_node("Cast", difference.output, attr={"to": dtype}, shapes=[shape], dtypes=[dtype], **final)


def change_case(ctx: ConverterGraph, node: ConverterNode, name: str, args: list[str]) -> ConverterNode:  # noqa: ARG001 - tf2onnx calls every handler like this
    """Write StringLower and StringUpper as StringNormalizer, which takes one dimension, in a locale that is there.

    Without one, ONNX Runtime asks the system for en_US, which containers seldom have. TensorFlow changes the letters
    of ASCII alone unless the encoding is "utf-8": what the locale "C" does, and C.UTF-8.
    """
    action = "LOWER" if node.type == "StringLower" else "UPPER"
    encoding = node.get_attr_str("encoding") if node.get_attr("encoding") is not None else ""
    source, output, shape = node.input[0], node.output[0], ctx.get_shape(node.output[0])
    ctx.remove_node(node.name)
    line = ctx.make_const(utils.make_name(f"{name}/line"), np.array([-1], np.int64)).output[0]
    form = ctx.make_node("Shape", [source], dtypes=[TensorProto.INT64]).output[0]
    flat = ctx.make_node("Reshape", [source, line], shapes=[[-1]], dtypes=[TensorProto.STRING]).output[0]
    attributes = {"case_change_action": action, "locale": "C.UTF-8" if encoding == "utf-8" else "C"}
    changed = ctx.make_node(
        "StringNormalizer", [flat], attr=attributes, shapes=[[-1]], dtypes=[TensorProto.STRING]
    ).output[0]
    return ctx.make_node(
        "Reshape", [changed, form], outputs=[output], name=name, shapes=[shape], dtypes=[TensorProto.STRING]
    )


Handler = Callable[[ConverterGraph, ConverterNode, str, list[str]], ConverterNode]

HANDLERS: Final[dict[str, tuple[Handler, list[str]]]] = {
    "Erfc": (erfc, []),
    "StringLower": (change_case, []),
    "StringUpper": (change_case, []),
}
