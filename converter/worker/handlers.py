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


Handler = Callable[[ConverterGraph, ConverterNode, str, list[str]], ConverterNode]

HANDLERS: Final[dict[str, tuple[Handler, list[str]]]] = {"Erfc": (erfc, [])}
