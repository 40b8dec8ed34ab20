"""LSTM and GRU recognised as torch's layers of that name, with torch's order of gates.

Run directly they are torch's own; traced they are torch's scan over the same parameters, because nn.LSTM and nn.GRU
cannot be exported with a dynamic number of steps. What torch's layers cannot do (peepholes, clipping, other
activations, the reset gate before the recurrent product) stays with the operators.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from server.lowering.dtypes import to_torch
from server.lowering.graph import Node
from server.lowering.operators.index import reverse_sequence
from server.lowering.operators.recurrent import State, run_steps
from server.lowering.parameters import path_of

if TYPE_CHECKING:
    from server.lowering.walk import Walk

# ONNX's order of gates as positions in torch's: LSTM i o f c -> i f g o, GRU z r h -> r z n.
_ORDERS: Final[Mapping[str, tuple[int, ...]]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
_ACTIVATIONS: Final = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}
_KNOWN: Final = frozenset({"activations", "direction", "hidden_size", "linear_before_reset", "layout"})


class Series(nn.Module):
    """What LSTM and GRU have in common: ONNX's layout around torch's layer.

    Attributes:
        core: torch's layer.
        backwards: Whether the only direction is from the end.
        batch_first: Whether the batch comes first in all tensors.
    """

    states: ClassVar[int]

    def __init__(self, core: nn.LSTM | nn.GRU, *, backwards: bool, batch_first: bool) -> None:
        super().__init__()
        self.core, self.backwards, self.batch_first = core, backwards, batch_first
        self._hidden, self._directions = core.hidden_size, 2 if core.bidirectional else 1
        # torch.compile refuses to look at such a layer, but not at the list of parameters that the layer keeps.
        self._weights = core._flat_weights  # noqa: SLF001 - see above

    def _apply(self, *arguments: Any, **keywords: Any) -> Self:
        """As any module's, after which the layer keeps a new list."""
        super()._apply(*arguments, **keywords)  # type: ignore[no-untyped-call] # torch's
        self._weights = self.core._flat_weights  # noqa: SLF001 - see above
        return self

    def forward(
        self, data: torch.Tensor, lengths: torch.Tensor | None = None, *initial: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Run the layer.

        Args:
            data: [time, batch, inputs], or [batch, time, inputs].
            lengths: [batch], or None if all rows are of full length.
            initial: States [directions, batch, hidden] before the first step; zero where None.

        Returns:
            Outputs [time, directions, batch, hidden] (or [batch, time, directions, hidden]), and the last states,
            [directions, batch, hidden] (or [batch, directions, hidden]).
        """
        if self.batch_first:
            data = data.transpose(0, 1)
        zero = data.new_zeros((self._directions, data.shape[1], self._hidden))
        given = (*initial, *[None] * (self.states - len(initial)))
        states = tuple(
            zero if one is None else one.transpose(0, 1) if self.batch_first else one for one in given
        )  # fmt: skip
        traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        output, last = (self._steps if traced else self._layer)(data, lengths, states)
        if self.batch_first:
            return (output.permute(2, 0, 1, 3), *(one.transpose(0, 1) for one in last))
        return (output, *last)

    def _turned(self, data: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        return data.flip(0) if lengths is None else reverse_sequence(data, lengths)

    def _layer(self, data: torch.Tensor, lengths: torch.Tensor | None, states: State) -> tuple[torch.Tensor, State]:
        """Through torch's layer."""
        steps, batch = data.shape[:2]
        series: Any = self._turned(data, lengths) if self.backwards else data
        if lengths is not None:  # a packed row has one step at least: an empty one is put right afterwards
            series = pack_padded_sequence(series, lengths.clamp(min=1).cpu(), enforce_sorted=False)
        whole = tuple(one.contiguous() for one in states)
        output, after = self.core(series, whole if len(whole) > 1 else whole[0])
        last: State = after if isinstance(after, tuple) else (after,)
        if lengths is not None:
            output, _ = pad_packed_sequence(PackedSequence(*output), total_length=steps)
            some = (lengths > 0).reshape(1, -1, 1)
            output = torch.where(some, output, torch.zeros_like(output))
            last = tuple(torch.where(some, new, old) for new, old in zip(last, whole, strict=True))
        output = output.reshape(steps, batch, -1, self._hidden).transpose(1, 2)
        return (self._turned(output.squeeze(1), lengths).unsqueeze(1) if self.backwards else output), last

    def _steps(self, data: torch.Tensor, lengths: torch.Tensor | None, states: State) -> tuple[torch.Tensor, State]:
        """Step by step, in the form that is exported with any number of steps."""
        outputs, finals = [], []
        size = len(self._weights) // self._directions
        for index in range(self._directions):
            backwards = self.backwards or index == 1
            weight, recurrent, *biases = self._own(index * size, size)
            bias, extra = biases or (None, None)
            series = self._turned(data, lengths) if backwards else data
            inputs = nn.functional.linear(series, weight, bias)

            def step(x: torch.Tensor, state: State, own: Any = recurrent, offset: Any = extra) -> State:
                return self._step(x, nn.functional.linear(state[0], own, offset), state)

            output, last = run_steps(step, tuple(one[index] for one in states), inputs, lengths)
            outputs.append(self._turned(output, lengths) if backwards else output)
            finals.append(last)
        return torch.stack(outputs, 1), tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _own(self, first: int, count: int) -> list[Any]:
        """The parameters of one direction: torch.export replaces those of the layer, torch.compile sees the list."""
        if torch.compiler.is_dynamo_compiling():
            return self._weights[first : first + count]
        names = self.core._flat_weights_names[first : first + count]  # noqa: SLF001 - as above
        return [getattr(self.core, name) for name in names]

    def _step(self, x: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
        raise NotImplementedError


class LSTM(Series):
    """LSTM of torch in ONNX's layout."""

    states = 2

    def _step(self, x: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
        i, f, new, o = torch.chunk(x + recurrent, 4, 1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(new)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class GRU(Series):
    """GRU of torch in ONNX's layout."""

    states = 1

    def _step(self, x: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
        size = 2 * self._hidden
        reset, update = torch.chunk(torch.sigmoid(x[:, :size] + recurrent[:, :size]), 2, 1)
        candidate = torch.tanh(x[:, size:] + reset * recurrent[:, size:])
        return ((1 - update) * candidate + update * state[0],)


def recurrent(node: Node, walk: "Walk") -> bool:
    """LSTM or GRU with constant weights: torch's layer of that name."""
    names = [*node.inputs, *[""] * (8 - len(node.inputs))]
    data, weight, own, bias, lengths, first, cell, peepholes = names
    if not _fits(node) or peepholes or any(
        walk.graph.constant(name) is None or not walk.weights.is_single(name) for name in (weight, own, bias) if name
    ):  # fmt: skip
        return False
    parts = [walk.graph.constant(name) for name in (weight, own, bias) if name]
    if any(part is None or walk.graph.uses[name] != 1 for part, name in zip(parts, (weight, own, bias), strict=False)):
        return False
    core, variables = _core(node, walk, (weight, own, bias))
    kind = LSTM if node.operator == "LSTM" else GRU
    module = kind(
        core,
        backwards=node.attributes.get("direction", "forward") == "reverse",
        batch_first=bool(node.attributes.get("layout", 0)),
    )
    place = path_of(_scope(variables) or walk.weights.label(data))
    states = [first, cell] if node.operator == "LSTM" else [first]
    arguments = [walk.tensor(data), walk.tensor(lengths) if lengths else None]
    arguments.extend(walk.tensor(name) if name else None for name in states)
    result = walk.layer(place, module, *arguments, name=node.outputs[0])
    for leaf, (initializer, variable) in variables.items():
        walk.record_as(f"{result.target}.core.{leaf}", initializer, variable)
    walk.bind_all(node, result)
    return True


def _fits(node: Node) -> bool:
    """Whether torch's layer computes what the operator's attributes say."""
    attributes = node.attributes
    wanted = _ACTIVATIONS[node.operator]
    named = tuple(name.lower() for name in attributes.get("activations", ()))
    directions = 2 if attributes.get("direction", "forward") == "bidirectional" else 1
    before = node.operator == "LSTM" or attributes.get("linear_before_reset", 0) == 1
    return set(attributes) <= _KNOWN and before and named in {(), wanted * directions}


def _core(node: Node, walk: "Walk", names: tuple[str, str, str]) -> tuple[nn.LSTM | nn.GRU, dict[str, tuple[str, str]]]:
    """The layer of torch with the weights of the graph, and for each parameter its (initializer, variable)."""
    protos = [walk.graph.constant(name) if name else None for name in names]
    weight, own, bias = (None if proto is None else to_torch(proto) for proto in protos)
    assert weight is not None and own is not None  # noqa: S101, PT018 - `recurrent` has seen to it
    directions, _, length = weight.shape
    hidden = own.shape[2]
    kind = nn.LSTM if node.operator == "LSTM" else nn.GRU
    core = kind(length, hidden, bias=bias is not None, bidirectional=directions == 2, device="meta")
    claims = walk.weights.claim(weight[0].numel(), own[0].numel(), hidden * len(_ORDERS[node.operator]), directions,
                                f"{node.name}/{names[0]}/{node.inputs[0]}")  # fmt: skip
    variables: dict[str, tuple[str, str]] = {}
    for index in range(directions):
        ending = "_l0_reverse" if index else "_l0"
        claim = claims[index]
        halves = (None, None) if bias is None else torch.chunk(bias[index], 2)
        double = claim.bias is None or claim.bias.elements == 2 * hidden * len(_ORDERS[node.operator])
        for leaf, value, name, variable in (
            ("weight_ih", weight[index], names[0], claim.kernel), ("weight_hh", own[index], names[1], claim.recurrent),
            ("bias_ih", halves[0], names[2], claim.bias), ("bias_hh", halves[1], names[2], claim.bias),
        ):  # fmt: skip
            if value is None:
                continue
            trained = claim.trained and (variable is None or variable.trainable)
            if leaf == "bias_hh" and not double and not value.any():
                trained, variable = False, None  # noqa: PLW2901 - torch has two vectors where Keras has one
            parameter = nn.Parameter(_ordered(value, node.operator), requires_grad=trained)
            setattr(core, leaf + ending, parameter)
            label = "" if variable is None else variable.name
            if label and leaf.startswith("bias") and double:
                label = f"{label}/{0 if leaf == 'bias_ih' else 1}"  # rows of Keras's one variable
            variables[leaf + ending] = (name, label)
    return core.eval(), variables


def _ordered(value: torch.Tensor, operator: str) -> torch.Tensor:
    """Rows by gate, in torch's order."""
    gates = torch.chunk(value, len(_ORDERS[operator]))
    return torch.cat([gates[index] for index in _ORDERS[operator]]).contiguous()


def _scope(variables: Mapping[str, tuple[str, str]]) -> str:
    """The scope of a layer's variables, without its cell."""
    name = variables["weight_ih_l0"][1].rpartition("/")[0]
    scope, _, leaf = name.rpartition("/")
    return scope if scope and leaf.endswith("cell") else name
