"""Layers recognised in a graph: operators with constant weights come back as the torch modules of that name.

Each function takes a node and the walk, writes the layer and returns True, or returns False where the node is better
computed as an operator.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import nn

from server.lowering.attention import attention
from server.lowering.graph import Node
from server.lowering.operators.padding import is_symmetric, padded, padded_to_stride, resolved, spatial
from server.lowering.parameters import path_of
from server.lowering.recurrent import recurrent

if TYPE_CHECKING:
    from server.lowering.walk import Walk

_TRANSPOSED: Final = (1, 0)
# Last components of variables' names that say what a layer's parameter is, not which layer it is.
_LEAVES: Final = frozenset({
    "kernel", "weight", "weights", "w", "gamma", "scale", "embeddings", "embedding", "depthwise_kernel",
    "pointwise_kernel", "moving_mean", "beta", "bias",
})  # fmt: skip
Layer = Callable[[Node, "Walk"], bool]


def _place(walk: "Walk", name: str) -> str:
    """Where a layer goes: the scope of its main variable."""
    label = walk.weights.label(name)
    parent, _, leaf = label.rpartition("/")
    return path_of(parent if parent and leaf in _LEAVES else label)


def _parameter(walk: "Walk", name: str, order: tuple[int, ...] = ()) -> nn.Parameter | None:
    """A constant as a layer holds it; None if the graph needs it with its axes in another order as well."""
    value = walk.weights.take(walk.graph, name, order, weight=True)
    if value is None or isinstance(value, nn.Parameter):
        return value
    return nn.Parameter(value, requires_grad=False)


def _dims(walk: "Walk", name: str) -> tuple[int, ...] | None:
    """The sizes of a constant; None for other values."""
    tensor = walk.graph.constant(name) if name else None
    return tuple(tensor.dims) if tensor is not None else None


def _emit(node: Node, walk: "Walk", data: Any, module: nn.Module, constants: Mapping[str, str]) -> str:
    """Write a call of a layer; a second use of the same layer is a second call. Returns the layer's place."""
    key = (type(module).__name__, module.extra_repr(), tuple(constants.items()))
    if key not in walk.layers:
        main = constants["weight"]
        value = walk.layer(_place(walk, main), module, data, name=node.outputs[0])
        walk.layers[key] = str(value.target)
        walk.record(str(value.target), constants)
    else:
        value = walk.call_layer(walk.layers[key], data, name=node.outputs[0])
    walk.bind(node.outputs[0], value)
    return walk.layers[key]


def _bias_behind(node: Node, walk: "Walk", width: int) -> str:
    """The vector that is added to the output of a product, directly or after a Reshape that keeps the last axis.

    The addition is then part of the layer: its output stands for that of the node before it.
    """
    graph, last = walk.graph, node.outputs[0]
    for _ in range(2):
        after = graph.consumers.get(last, [])
        if graph.uses[last] != 1 or len(after) != 1:
            return ""
        (user,) = after
        if user.operator == "Add":
            others = [name for name in user.inputs if name != last]
            if len(others) == 1 and _dims(walk, others[0]) == (width,):
                walk.absorbed[user.outputs[0]] = last
                return others[0]
            return ""
        shape = graph.type_of(user.outputs[0]).shape
        if user.operator != "Reshape" or user.inputs[0] != last or not shape or shape[-1] != width:
            return ""
        last = user.outputs[0]
    return ""


def _linear(node: Node, walk: "Walk", data: str, kernel: str, bias: str, order: tuple[int, ...]) -> bool:
    weight = _parameter(walk, kernel, order)
    offset = _parameter(walk, bias) if bias else None
    if weight is None or (bias and offset is None):
        return False
    width, length = weight.shape
    dropped = None if bias else walk.weights.dropped_bias(kernel, width)
    module = nn.Linear(length, width, bias=bool(bias) or dropped is not None, device="meta")
    module.weight = weight
    if offset is not None:
        module.bias = offset
    if dropped is not None:
        module.bias = nn.Parameter(weight.new_zeros(width), requires_grad=dropped.trainable)
    value = _emit(node, walk, walk.tensor(data), module, {"weight": kernel} | ({"bias": bias} if bias else {}))
    if dropped is not None:
        walk.record_as(f"{value}.bias", "", dropped.name)
    return True


def matmul(node: Node, walk: "Walk") -> bool:
    """MatMul with a constant matrix, and the bias added behind it: Linear. Behind a Softmax it may be attention."""
    if attention(node, walk):
        return True
    data, kernel = node.inputs
    dims = _dims(walk, kernel)
    known = walk.graph.type_of(data).shape
    if dims is None or len(dims) != 2 or not known or not walk.weights.is_weight(walk.graph, kernel):
        return False
    if not walk.weights.fits(kernel, _TRANSPOSED):
        return False
    return _linear(node, walk, data, kernel, _bias_behind(node, walk, dims[1]), _TRANSPOSED)


def gemm(node: Node, walk: "Walk") -> bool:
    """Gemm with constant weights: Linear."""
    data, kernel, *rest = node.inputs
    bias = rest[0] if rest else ""
    plain = node.attributes.get("alpha", 1.0) == 1.0 and (not bias or node.attributes.get("beta", 1.0) == 1.0)
    dims = _dims(walk, kernel)
    if not plain or node.attributes.get("transA", 0) or dims is None or not walk.weights.is_weight(walk.graph, kernel):
        return False
    turned = bool(node.attributes.get("transB", 0))
    if bias and _dims(walk, bias) != (dims[0 if turned else 1],):
        return False
    return _linear(node, walk, data, kernel, bias, () if turned else _TRANSPOSED)


_CONVOLUTIONS: Final = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def conv(node: Node, walk: "Walk") -> bool:
    """Conv with constant weights: Conv1d, Conv2d or Conv3d, behind a padding that torch's own does not cover."""
    data, kernel, *rest = node.inputs
    bias = rest[0] if rest else ""
    dims = _dims(walk, kernel)
    if dims is None or not walk.weights.is_weight(walk.graph, kernel) or len(dims) - 2 not in _CONVOLUTIONS:
        return False
    if bias and _dims(walk, bias) != (dims[0],):
        return False
    weight, offset = _parameter(walk, kernel), _parameter(walk, bias) if bias else None
    if weight is None or (bias and offset is None):
        return False
    value, own = _padding(node, walk, walk.tensor(data), dims[2:])
    rank, group = len(dims) - 2, node.attributes.get("group", 1)
    strides: Any = spatial(node.attributes.get("strides"), rank)
    dilations: Any = spatial(node.attributes.get("dilations"), rank)
    sizes: Any = dims[2:]
    module = _CONVOLUTIONS[rank](
        dims[1] * group, dims[0], sizes, strides, cast("Any", own), dilations, group, bias=bool(bias), device="meta"
    )
    module.weight = weight
    if offset is not None:
        module.bias = offset
    _emit(node, walk, value, module, {"weight": kernel} | ({"bias": bias} if bias else {}))
    return True


def _padding(node: Node, walk: "Walk", data: Any, kernel: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """What the layer pads itself; anything else is a call before it."""
    rank = len(kernel)
    strides = spatial(node.attributes.get("strides"), rank)
    dilations = spatial(node.attributes.get("dilations"), rank)
    auto, pads = node.attributes.get("auto_pad", "NOTSET"), node.attributes.get("pads")
    if auto in {"NOTSET", "", "VALID"} or all(stride == 1 for stride in strides):
        pairs = resolved((0,) * rank, kernel, strides, dilations, auto, pads)
        if is_symmetric(pairs):
            return data, tuple(before for before, _ in pairs)
        return walk.call(padded, data, pairs, name=f"{node.outputs[0]}_padded"), (0,) * rank
    arguments = (data, kernel, strides, dilations, auto)
    return walk.call(padded_to_stride, *arguments, name=f"{node.outputs[0]}_padded"), (0,) * rank


def layer_normalization(node: Node, walk: "Walk") -> bool:
    """LayerNormalization over the last axes with constant weights: LayerNorm."""
    data, scale, *rest = node.inputs
    bias = rest[0] if rest else ""
    dims = _dims(walk, scale)
    rank = len(walk.graph.type_of(data).shape or ())
    axis = node.attributes.get("axis", -1)
    first = axis if axis < 0 else axis - rank
    if dims is None or (bias and _dims(walk, bias) != dims) or len(dims) != -first or any(node.outputs[1:]):
        return False
    if (axis >= 0 and not rank) or not walk.weights.is_weight(walk.graph, scale):
        return False
    weight, offset = _parameter(walk, scale), _parameter(walk, bias) if bias else None
    if weight is None or (bias and offset is None):
        return False
    epsilon = node.attributes.get("epsilon", 1e-5)
    dropped = None if bias or len(dims) != 1 else walk.weights.dropped_bias(scale, dims[0])
    module = nn.LayerNorm(dims, eps=epsilon, bias=bool(bias) or dropped is not None, device="meta")
    module.weight = weight
    if offset is not None:
        module.bias = offset
    if dropped is not None:
        module.bias = nn.Parameter(weight.new_zeros(dims), requires_grad=dropped.trainable)
    value = _emit(node, walk, walk.tensor(data), module, {"weight": scale} | ({"bias": bias} if bias else {}))
    if dropped is not None:
        walk.record_as(f"{value}.bias", "", dropped.name)
    return True


_BATCH_NORMS: Final = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def batch_normalization(node: Node, walk: "Walk") -> bool:
    """BatchNormalization with constant weights and statistics: BatchNorm."""
    data, *names = node.inputs
    rank = len(walk.graph.type_of(data).shape or ())
    dims = [_dims(walk, name) for name in names]
    if rank not in _BATCH_NORMS or None in dims or node.attributes.get("training_mode", 0) or any(node.outputs[1:]):
        return False
    if len(set(names)) != len(names) or not walk.weights.is_weight(walk.graph, names[0]):
        return False
    weight, bias = _parameter(walk, names[0]), _parameter(walk, names[1])
    mean, variance = (walk.weights.take(walk.graph, name, statistic=True) for name in names[2:])
    if weight is None or bias is None or mean is None or variance is None:
        return False
    momentum = 1.0 - node.attributes.get("momentum", 0.9)
    epsilon = node.attributes.get("epsilon", 1e-5)
    module = _BATCH_NORMS[rank](weight.shape[0], eps=epsilon, momentum=momentum)
    module.weight, module.bias = weight, bias
    module.running_mean, module.running_var = mean.detach(), variance.detach()
    keys = ("weight", "bias", "running_mean", "running_var")
    _emit(node, walk, walk.tensor(data), module, dict(zip(keys, names, strict=True)))
    return True


def gather(node: Node, walk: "Walk") -> bool:
    """Gather of rows of a constant matrix at computed positions: Embedding."""
    table, indices = node.inputs
    dims = _dims(walk, table)
    if dims is None or len(dims) != 2 or node.attributes.get("axis", 0) not in {0, -2}:
        return False
    if indices in walk.host_names or walk.graph.constant(indices) is not None:
        return False
    if not walk.weights.is_weight(walk.graph, table) or not walk.graph.type_of(indices).dtype:
        return False
    weight = _parameter(walk, table)
    if weight is None:
        return False
    module = nn.Embedding(dims[0], dims[1], device="meta")
    module.weight = weight
    _emit(
        node, walk, walk.call(counted, walk.tensor(indices), dims[0], name=f"{indices}_rows"), module, {"weight": table}
    )
    return True


def counted(indices: torch.Tensor, length: int) -> torch.Tensor:
    """Rows below 0 count from the end, which Embedding does not know."""
    return torch.where(indices < 0, indices + length, indices)


LAYERS: Final[Mapping[str, Layer]] = {
    "BatchNormalization": batch_normalization, "Conv": conv, "Gather": gather, "GRU": recurrent, "Gemm": gemm,
    "LSTM": recurrent, "LayerNormalization": layer_normalization, "MatMul": matmul,
}  # fmt: skip
