"""Names and places for what a module holds: its parameters, its buffers and its layers.

A parameter is a number that training changes. With a map to TensorFlow's variables those are the trainable ones, and
the constants that took the place of trainable ones which the export folded away; without such a map, every constant of
floating-point numbers that has more than one element.
"""

import keyword
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import fx, nn

from server.lowering.dtypes import TORCH_DTYPES, to_torch
from server.lowering.graph import Graph, elements

_IDENTITY: Final[tuple[int, ...]] = ()
_CELL: Final = ("kernel", "recurrent_kernel", "bias")  # what Keras calls the variables of a recurrent cell
_FLOATS: Final = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
# Path components that only say how TensorFlow reads a variable.
_NOISE: Final = re.compile(
    r"(^|/)(ReadVariableOp(_\d+)?|resource|Read|Identity|(Stateful)?PartitionedCall(_\d+)?)(:\d+)?(?=/|$)|:\d+$"
)

# Keras's names of a layer's weights that go together.
_BIASES: Final[Mapping[str, str]] = {"gamma": "beta", "kernel": "bias"}


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


@dataclass(frozen=True, slots=True)
class Claim:
    """The variables of one direction of a recurrent layer, where they are known.

    Attributes:
        trained: Whether training changes them.
        kernel: Of the inputs.
        recurrent: Of the state.
        bias: One vector, or two (Keras's GRU) as one variable.
    """

    trained: bool
    kernel: Variable | None = None
    recurrent: Variable | None = None
    bias: Variable | None = None


@dataclass(slots=True)
class Weights:
    """Every constant of a model as a tensor, once.

    Attributes:
        variables: Initializer -> variable, or None if that is not known.
        folded: Trainable variables that no initializer holds as they were.
        origins: Key in the module's state_dict -> where it comes from.
    """

    variables: Mapping[str, Variable] | None = None
    folded: Sequence[Variable] = ()
    origins: dict[str, Origin] = field(default_factory=dict)
    _made: dict[str, tuple[torch.Tensor, tuple[int, ...]]] = field(default_factory=dict)
    _left: Counter[int] = field(default_factory=Counter)
    _cells: dict[str, dict[str, Variable]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._left = Counter(variable.elements for variable in self.folded if variable.trainable)
        for variable in self.folded:
            scope, _, leaf = variable.name.rpartition("/")
            if leaf in _CELL:
                self._cells.setdefault(scope, {})[leaf] = variable

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

    def record_as(self, key: str, name: str, variable: str) -> None:
        """Note that a parameter was made of a part of an initializer, and of which variable that is, if it is known."""
        self.origins[key] = Origin(name, variable)

    def is_single(self, name: str) -> bool:
        """Whether a constant may be taken apart: it is no variable as it is, and nothing else holds it."""
        return name not in (self.variables or {}) and name not in self._made

    def claim(self, kernel: int, recurrent: int, bias: int, directions: int, hint: str) -> list[Claim]:
        """Find the variables behind a recurrent layer, which an export merges and reorders.

        They are those of the only cells of the right sizes, or of the only ones whose name is in the hint.

        Args:
            kernel: How many numbers the kernel of one direction has.
            recurrent: The same of the recurrent kernel.
            bias: The same of one bias vector.
            directions: How many there are.
            hint: Names of values around the layer.

        Returns:
            One for each direction, forward first.
        """
        if self.variables is None:
            return [Claim(trained=True)] * directions
        sizes = (kernel, recurrent)
        fits = {
            scope: cell
            for scope, cell in self._cells.items()
            if tuple(cell[leaf].elements for leaf in _CELL[:2] if leaf in cell) == sizes
            and ("bias" not in cell or cell["bias"].elements in {bias, 2 * bias})
        }
        if len(fits) > directions:
            words = set(re.split(r"[/:]", hint))
            fits = {scope: cell for scope, cell in fits.items() if words & set(scope.split("/")[:-1])}
        scopes = sorted(fits, key=lambda scope: "backward" in scope)
        if len(scopes) != directions or (directions == 2 and "backward" in scopes[0]):
            return [Claim(trained=self._left[kernel] > 0)] * directions
        for scope in scopes:
            cell = self._cells.pop(scope)
            self._left.subtract(variable.elements for variable in cell.values() if variable.trainable)
        return [Claim(True, *(fits[scope].get(leaf) for leaf in _CELL)) for scope in scopes]  # noqa: FBT003 - trained

    def dropped_bias(self, kernel: str, width: int) -> Variable | None:
        """The bias that belongs to a layer's kernel by name, and that the export left out because it was zero.

        Args:
            kernel: The initializer that holds the kernel.
            width: How many numbers the bias would have.
        """
        variable = (self.variables or {}).get(kernel)
        scope, _, leaf = variable.name.rpartition("/") if variable else ("", "", "")
        if leaf not in _BIASES:
            return None
        fits = (one for one in self.folded if one.name == f"{scope}/{_BIASES[leaf]}" and one.elements == width)
        found = next(fits, None)
        if found is not None:
            self._left[width] -= found.trainable
        return found

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


def drop_unread(root: nn.Module, code: fx.Graph) -> list[str]:
    """Take out what no call of the code reads: constants that were looked at, and turned out not to be needed.

    Args:
        root: The module.
        code: What it runs.

    Returns:
        The paths that parameters and buffers had.
    """
    read = {str(node.target) for node in code.nodes if node.op in {"get_attr", "call_module"}}

    def is_read(path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:length]) in read for length in range(1, len(parts) + 1))

    held = [*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)]
    dropped = [path for path, _ in held if not is_read(path)]
    for path in dropped:
        holder, _, leaf = path.rpartition(".")
        delattr(root.get_submodule(holder), leaf)
    for path, module in reversed(list(root.named_modules())):
        empty = not any(True for _ in module.children()) and not module.state_dict() and type(module) is nn.Module
        if path and empty and not any(True for _ in module.buffers()) and not is_read(path):
            holder, _, leaf = path.rpartition(".")
            delattr(root.get_submodule(holder), leaf)
    return dropped
