"""Raising a model's opset, for operators that came later.

Between two opsets most operators only gain dtypes. Those are listed here, after reading ONNX's changelog; a model that
uses any other operator whose definition changed stays as it is.
"""

from typing import Final

import onnx
import onnx_ir as ir
from onnx import defs

# Defined anew after opset 18 and up to 23, with more dtypes or attributes whose defaults keep the meaning.
_WIDENED: Final = frozenset({
    "Cast", "CastLike", "Constant", "ConstantOfShape", "Equal", "Flatten", "Identity", "If", "Loop", "Pad", "Reshape",
    "Scan", "Shape", "Size", "Squeeze", "Transpose", "Unsqueeze", "IsInf", "IsNaN", "ReduceMax", "ReduceMin",
    "QuantizeLinear", "DequantizeLinear", "Conv", "ConvTranspose", "Dropout", "Elu", "EyeLike", "GlobalAveragePool",
    "GlobalMaxPool", "GRU", "LSTM", "RNN", "HardSigmoid", "HardSwish", "InstanceNormalization", "LpNormalization",
    "MaxPool", "Mish", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
    "Bernoulli", "Selu", "Softplus", "Softsign", "ThresholdedRelu", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh",
    "Cos", "Cosh", "Sin", "Sinh", "Tan", "Round", "Det", "Resize",
})  # fmt: skip


def may_raise(model: ir.Model, opset: int) -> bool:
    """Whether every operator of the model means the same in a later opset."""
    now = model.opset_imports.get("")
    if now is None or model.functions:
        return False
    return now >= opset or all(
        node.op_type in _WIDENED or _defined(node.op_type, now) == _defined(node.op_type, opset)
        for node in model.graph.all_nodes()
        if not node.domain
    )


def raise_opset(model: ir.Model, opset: int) -> None:
    """Declare a later opset, and the file format that belongs to it."""
    if (model.opset_imports.get("") or 0) < opset:
        model.graph.opset_imports[""] = opset
        needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
        model.ir_version = max(model.ir_version or 0, needed)


def _defined(operator: str, opset: int) -> int:
    return int(defs.get_schema(operator, opset).since_version)
