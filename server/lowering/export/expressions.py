"""How single calls of a lowered module are written as plain PyTorch.

What has no entry here is written as a call of the operator's own function. Each entry says the same as that function
for the arguments that it is given, or declines.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from onnx import TensorProto
from torch import fx

from server.lowering import materialise
from server.lowering.dtypes import TORCH_DTYPES
from server.lowering.export.bundle import literal
from server.lowering.graph import Node, Type
from server.lowering.layers import counted
from server.lowering.operators.math import cast, gelu
from server.lowering.operators.shape import reshape, transpose, unsqueeze

# Arguments as they are written, and as they are.
Arguments = Sequence[str]
Writer = Callable[[Arguments, Sequence[Any], Mapping[str, Any]], str | None]

_INFIX: Final[Mapping[str, str]] = {
    "Add": "+", "Equal": "==", "Greater": ">", "GreaterOrEqual": ">=", "Less": "<", "LessOrEqual": "<=", "MatMul": "@",
    "Mul": "*", "Sub": "-",
}  # fmt: skip
_FUNCTIONS: Final[Mapping[str, str]] = {
    "Abs": "torch.abs", "Acos": "torch.acos", "And": "torch.logical_and", "Asin": "torch.asin", "Atan": "torch.atan",
    "Ceil": "torch.ceil", "Cos": "torch.cos", "Erf": "torch.erf", "Exp": "torch.exp", "Floor": "torch.floor",
    "HardSwish": "functional.hardswish", "IsNaN": "torch.isnan", "Log": "torch.log", "Neg": "torch.neg",
    "Not": "torch.logical_not", "Or": "torch.logical_or", "Reciprocal": "torch.reciprocal", "Relu": "torch.relu",
    "Round": "torch.round", "Sigmoid": "torch.sigmoid", "Sign": "torch.sign", "Sin": "torch.sin",
    "Softplus": "functional.softplus", "Softsign": "functional.softsign", "Sqrt": "torch.sqrt", "Tan": "torch.tan",
    "Tanh": "torch.tanh", "Where": "torch.where", "Xor": "torch.logical_xor",
}  # fmt: skip
_WHOLE: Final = frozenset({TensorProto.INT32, TensorProto.INT64})


def supplied(node: Node, written: Arguments) -> str | None:
    """A call of one of onnx2torch's modules."""
    name = node.operator
    if name in _INFIX:
        return f"{written[0]} {_INFIX[name]} {written[1]}"
    if name in _FUNCTIONS:
        return f"{_FUNCTIONS[name]}({', '.join(written)})"
    writer = _WITH_ATTRIBUTES.get(name)
    return None if writer is None else writer(written, node)


def _softmax(written: Arguments, node: Node) -> str:
    (data,) = written
    function = "torch.softmax" if node.operator == "Softmax" else "torch.log_softmax"
    if node.version >= 13:
        return f"{function}({data}, dim={node.attributes.get('axis', -1)})"
    return f"{function}({data}.flatten({node.attributes.get('axis', 1)}), dim=-1).reshape({data}.shape)"


def _elu(written: Arguments, node: Node) -> str:
    return f"functional.{node.operator.lower()}({written[0]}, alpha={node.attributes.get('alpha', 1.0)!r})"


def _leaky_relu(written: Arguments, node: Node) -> str:
    return f"functional.leaky_relu({written[0]}, {node.attributes.get('alpha', 0.01)!r})"


def _hard_sigmoid(written: Arguments, node: Node) -> str:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return f"torch.clamp({written[0]} * {alpha!r} + {beta!r}, 0.0, 1.0)"


def _arg(written: Arguments, node: Node) -> str:
    function, axis = f"torch.{node.operator.lower()}", node.attributes.get("axis", 0)
    kept, data = bool(node.attributes.get("keepdims", 1)), written[0]
    if not node.attributes.get("select_last_index", 0):
        return f"{function}({data}, dim={axis}, keepdim={kept})"
    return f"{data}.shape[{axis}] - 1 - {function}({data}.flip({axis}), dim={axis}, keepdim={kept})"


def _concat(written: Arguments, node: Node) -> str:
    return f"torch.cat([{', '.join(written)}], dim={node.attributes['axis']})"


def _einsum(written: Arguments, node: Node) -> str:
    return f"torch.einsum({', '.join([repr(node.attributes['equation']), *written])})"


_WITH_ATTRIBUTES: Final[Mapping[str, Callable[[Arguments, Node], str]]] = {
    "ArgMax": _arg, "ArgMin": _arg, "Celu": _elu, "Concat": _concat, "Einsum": _einsum, "Elu": _elu,
    "HardSigmoid": _hard_sigmoid, "LeakyRelu": _leaky_relu, "LogSoftmax": _softmax,
    "Softmax": _softmax,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OnHost:
    """One call on shapes. A list of sizes is a tuple, a single one a number.

    Attributes:
        node: The operator.
        written: Its arguments as they are written.
        given: Its arguments: calls, or numbers.
        types: Of a value's name gives what is known of it.
    """

    node: Node
    written: Arguments
    given: Sequence[Any]
    types: Callable[[str], Type]

    def expression(self) -> str | None:
        """The call as plain Python, or None where the operator's own function is called."""
        writer = {
            "Shape": self._shape, "Cast": self._cast, "Gather": self._gather, "Concat": self._concat,
            "Unsqueeze": self._unsqueeze, "Squeeze": self._squeeze, "Slice": self._slice, "Add": self._infix,
            "Sub": self._infix, "Mul": self._infix,
        }.get(self.node.operator)  # fmt: skip
        return None if writer is None else writer()

    def _shape(self) -> str:
        start, end = self.node.attributes.get("start", 0), self.node.attributes.get("end")
        cut = f"[{start or ''}:{'' if end is None else end}]" if start or end is not None else ""
        return f"{self.written[0]}.shape{cut}"

    def _cast(self) -> str | None:
        kinds = {self.types(name).dtype for name in (self.node.inputs[0], self.node.outputs[0])}
        return self.written[0] if kinds <= _WHOLE else None

    def _gather(self) -> str | None:
        places = self.given[1]
        if isinstance(places, fx.Node):
            return None
        if isinstance(places, tuple):
            return f"({' '.join(f'{self.written[0]}[{at}],' for at in places)})"
        return f"{self.written[0]}[{places}]"

    def _concat(self) -> str:
        parts = [
            ", ".join(map(literal, value)) if isinstance(value, tuple) else f"*{text}"
            for text, value in zip(self.written, self.given, strict=True)
        ]
        return f"({', '.join(part for part in parts if part)},)"

    def _unsqueeze(self) -> str:
        return f"({self.written[0]},)"

    def _squeeze(self) -> str | None:
        return f"{self.written[0]}[0]" if len(self.types(self.node.inputs[0]).shape or ()) == 1 else None

    def _slice(self) -> str | None:
        if any(isinstance(one, fx.Node) for one in self.given[1:]):
            return None
        step = self.given[4][0] if len(self.given) > 4 else 1
        end = "" if self.given[2][0] >= 2**31 - 1 else self.given[2][0]
        return f"{self.written[0]}[{self.given[1][0] or ''}:{end}{'' if step == 1 else f':{step}'}]"

    def _infix(self) -> str | None:
        symbol = {"Add": "+", "Sub": "-", "Mul": "*"}[self.node.operator]
        whole = self.types(self.node.outputs[0]).dtype in _WHOLE
        single = all(self.types(name).shape == () for name in self.node.inputs)
        return f"{self.written[0]} {symbol} {self.written[1]}" if whole and single else None


def _transpose(written: Arguments, _: Sequence[Any], keywords: Mapping[str, Any]) -> str | None:
    perm = keywords.get("perm")
    return f"{written[0]}.permute({', '.join(map(str, perm))})" if perm is not None else None


def _permute(written: Arguments, given: Sequence[Any], _: Mapping[str, Any]) -> str | None:
    return f"{written[0]}.permute({', '.join(map(str, given[1]))})"


def _reshape(written: Arguments, given: Sequence[Any], keywords: Mapping[str, Any]) -> str | None:
    target = given[1] if len(given) > 1 else None
    if not isinstance(target, tuple) or keywords.get("allowzero"):
        return None
    sizes = [f"{written[0]}.shape[{axis}]" if one == 0 else str(one) for axis, one in enumerate(target)]
    return f"{written[0]}.reshape({', '.join(sizes)})" if sizes else f"{written[0]}.reshape(())"


def _unsqueeze(written: Arguments, given: Sequence[Any], keywords: Mapping[str, Any]) -> str | None:
    axes = given[1] if len(given) > 1 else keywords["axes"]
    axes = axes if isinstance(axes, tuple) else (axes,)
    return f"{written[0]}.unsqueeze({axes[0]})" if len(axes) == 1 and isinstance(axes[0], int) else None


def _cast(written: Arguments, _: Sequence[Any], keywords: Mapping[str, Any]) -> str | None:
    return f"{written[0]}.to({TORCH_DTYPES[keywords['to']]})"


def _entry(written: Arguments, given: Sequence[Any], _: Mapping[str, Any]) -> str | None:
    return f"{written[0]}[{given[1]}]"


def _gelu(written: Arguments, _: Sequence[Any], keywords: Mapping[str, Any]) -> str | None:
    return f"functional.gelu({written[0]}, approximate={keywords.get('approximate', 'none')!r})"


def _counted(written: Arguments, given: Sequence[Any], _: Mapping[str, Any]) -> str | None:
    return f"torch.where({written[0]} < 0, {written[0]} + {given[1]}, {written[0]})"


def _exchanged(written: Arguments, given: Sequence[Any], _: Mapping[str, Any]) -> str | None:
    return f"{written[0]}.transpose({given[1]}, {given[2]})"


WRITERS: Final[Mapping[Callable[..., Any], Writer]] = {
    transpose: _transpose, torch.permute: _permute, torch.transpose: _exchanged, reshape: _reshape,
    unsqueeze: _unsqueeze, cast: _cast, materialise.entry: _entry, gelu: _gelu, counted: _counted,
}  # fmt: skip


def number(value: Any) -> str:
    """An argument that is no call."""
    if isinstance(value, float) and math.isinf(value):
        return "math.inf" if value > 0 else "-math.inf"
    return literal(value)
