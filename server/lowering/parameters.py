"""Names and places for what a module holds: its parameters, its buffers and its layers.

A parameter is a number that training changes. With a map to TensorFlow's variables those are the trainable ones, and
the constants that took the place of trainable ones which the export folded away; without such a map, every constant of
floating-point numbers that has more than one element.
"""

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import nn

from server.lowering.dtypes import TORCH_DTYPES, to_torch
from server.lowering.graph import Graph, elements

_IDENTITY: Final[tuple[int, ...]] = ()
_FLOATS: Final = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
# Path components that only say how TensorFlow reads a variable.
_NOISE: Final = re.compile(r"(^|/)(ReadVariableOp(_\d+)?|resource|Read|Identity)(:\d+)?(?=/|$)|:\d+$")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the TensorFlow model.

    Attributes:
        name: TensorFlow's, without ":0".
        trainable: Whether training changes it.
        elements: How many numbers it has; needed only for one that no initializer holds.
    """

    name: str
    trainable: bool = True
    elements: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a parameter or buffer of a lowered module comes from.

    Attributes:
        initializer: Its name in the ONNX graph.
        variable: Name of the TensorFlow variable that the initializer holds, or "".
        permutation: The parameter is the initializer with its axes in this order; empty: as they are.
    """

    initializer: str
    variable: str
    permutation: tuple[int, ...] = ()


@dataclass(slots=True)
class Weights:
    """Every constant of a model as a tensor, once.

    Attributes:
        variables: Initializer -> variable, or None if that is not known.
        folded: Trainable variables that no initializer holds as they were.
        origins: Key in the module's state_dict -> where it comes from.
    """

    variables: Mapping[str, Variable] | None = None
    folded: Iterable[Variable] = ()
    origins: dict[str, Origin] = field(default_factory=dict)
    _made: dict[str, tuple[torch.Tensor, tuple[int, ...]]] = field(default_factory=dict)
    _left: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._left = Counter(variable.elements for variable in self.folded if variable.trainable)

    def names(self, name: str) -> bool:
        """Whether an initializer is known to hold a variable."""
        return name in (self.variables or {})

    def label(self, name: str) -> str:
        """What to call an initializer: its variable's name if it has one."""
        variable = (self.variables or {}).get(name)
        return variable.name if variable else _NOISE.sub("", name)

    def take(
        self, graph: Graph, name: str, permutation: tuple[int, ...] = _IDENTITY,
        *, weight: bool = False, statistic: bool = False,
    ) -> torch.Tensor | None:  # fmt: skip
        """A constant, made on first use; the same object afterwards.

        Args:
            graph: A graph that knows the constant.
            name: The constant's.
            permutation: Order of axes that the caller wants it in.
            weight: Whether it is a layer's weight, and so a parameter even if it has one element alone.
            statistic: Whether it is a layer's running statistic, and so never a parameter.

        Returns:
            A Parameter or a tensor, or None if it is held already with its axes in another order.

        Raises:
            KeyError: torch has no such element type.
        """
        if name not in self._made:
            proto = graph.constant(name)
            if proto is None:
                msg = f"{name} is no constant"
                raise ValueError(msg)
            tensor = to_torch(proto)
            if permutation:
                tensor = tensor.permute(permutation).contiguous()
            trainable = not statistic and self._is_trainable(name, tensor, weight=weight)
            self._made[name] = (nn.Parameter(tensor) if trainable else tensor, permutation)
        tensor, order = self._made[name]
        return tensor if order == permutation else None

    def order(self, name: str) -> tuple[int, ...]:
        """The order of axes in which a constant is held."""
        return self._made[name][1]

    def tensor(self, name: str) -> torch.Tensor:
        """A constant that was taken before."""
        return self._made[name][0]

    def fits(self, name: str, permutation: tuple[int, ...]) -> bool:
        """Whether a constant is not held yet, or with its axes in this order."""
        return name not in self._made or self._made[name][1] == permutation

    def is_weight(self, graph: Graph, name: str) -> bool:
        """Whether a value is a constant of floating-point numbers that a layer could hold."""
        proto = graph.constant(name)
        return proto is not None and TORCH_DTYPES.get(proto.data_type) in _FLOATS and self._knows(name, elements(proto))

    def record(self, key: str, name: str) -> None:
        """Note under which key of the state_dict a constant is."""
        variable = (self.variables or {}).get(name)
        self.origins[key] = Origin(name, variable.name if variable else "", self.order(name))

    def _knows(self, name: str, size: int) -> bool:
        """Whether training could change the constant: for all that is known, or since a variable became it."""
        if self.variables is None or name in self.variables or name in self._made:
            return True
        return self._left[size] > 0

    def _is_trainable(self, name: str, tensor: torch.Tensor, *, weight: bool) -> bool:
        if tensor.dtype not in _FLOATS:
            return False
        if self.variables is None:
            return weight or tensor.numel() > 1
        if (variable := self.variables.get(name)) is not None:
            return variable.trainable
        if tensor.numel() > 1 and self._left[tensor.numel()] > 0:
            self._left[tensor.numel()] -= 1
            return True
        return False


def path_of(label: str) -> str:
    """A name as a path of attributes: "vit/layer_._0/query:0" becomes "vit.layer_0.query"."""
    parts = [re.sub(r"_+", "_", re.sub(r"\W", "_", part, flags=re.ASCII)).strip("_") for part in label.split("/")]
    return ".".join(_attribute(part) for part in parts if part) or "constant"


def _attribute(part: str) -> str:
    """A name that Python takes behind a dot."""
    if keyword.iskeyword(part):
        return f"{part}_"
    return f"_{part}" if part[0].isdigit() else part


def attach(root: nn.Module, path: str, what: nn.Module | torch.Tensor, *, persistent: bool = True) -> str:
    """Put a layer, a parameter or a buffer under a module.

    Args:
        root: The module.
        path: Where, with modules made on the way as needed. If the place is taken, a number is added.
        what: A layer, a parameter, or another tensor, which becomes a buffer.
        persistent: Of a buffer, whether it is part of the state_dict.

    Returns:
        The path that it has.
    """
    *above, leaf = path.split(".")
    holder = root
    way = []
    for part in above:
        own = part
        if hasattr(holder, part) and not isinstance(getattr(holder, part), nn.Module):
            own = f"{part}_"
        if not hasattr(holder, own):
            holder.add_module(own, nn.Module())
        holder = getattr(holder, own)
        way.append(own)
    name, number = leaf, 0
    while hasattr(holder, name):
        number += 1
        name = f"{leaf}_{number}"
    if isinstance(what, nn.Module):
        holder.add_module(name, what)
    elif isinstance(what, nn.Parameter):
        holder.register_parameter(name, what)
    else:
        holder.register_buffer(name, what, persistent=persistent)
    return ".".join((*way, name))
