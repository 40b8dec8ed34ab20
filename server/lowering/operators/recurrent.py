"""RNN, GRU and LSTM as ONNX defines them: peepholes, clipping, any activation, sequences of different lengths.

Where a module is traced, the steps become torch's scan, so that the number of steps stays dynamic and the code short;
run directly they are a loop. Weights: [directions, gates * hidden, inputs], gates in ONNX's order.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch._higher_order_ops.scan import scan
from torch.nn import functional

from server.lowering.operators.index import reverse_sequence
from server.lowering.table import Table

OPERATORS: Final = Table()
_MISSING: Final = "onnx2torch has none"
Activation = Callable[[torch.Tensor], torch.Tensor]
State = tuple[torch.Tensor, ...]
# Of the contributions of the input and the state, the next state.
Step = Callable[[torch.Tensor, State], State]
Floats = tuple[float, ...]
Combined = tuple[State, torch.Tensor]  # by name, since torch.compile evaluates the annotations of inner functions


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    """One of ONNX's activation functions; the defaults of alpha and beta depend on which."""

    def a(default: float) -> float:
        return default if alpha is None else alpha

    def b(default: float) -> float:
        return default if beta is None else beta

    functions: dict[str, Activation] = {
        "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softsign": functional.softsign,
        "softplus": functional.softplus,
        "leakyrelu": lambda x: functional.leaky_relu(x, a(0.01)),
        "elu": lambda x: functional.elu(x, a(1.0)),
        "thresholdedrelu": lambda x: torch.where(x > a(1.0), x, torch.zeros_like(x)),
        "affine": lambda x: a(1.0) * x + b(0.0),
        "scaledtanh": lambda x: a(1.0) * torch.tanh(b(1.0) * x),
        "hardsigmoid": lambda x: torch.clamp(a(0.2) * x + b(0.5), 0.0, 1.0),
    }  # fmt: skip
    return functions[name.lower()]


def _functions(
    names: tuple[str, ...] | None, default: tuple[str, ...], directions: int, alphas: Floats | None,
    betas: Floats | None,
) -> list[list[Activation]]:  # fmt: skip
    """The activation functions of each direction.

    ONNX gives alphas and betas only for those functions that take some, in the order of the functions.
    """
    wanted = names or default * directions
    left, right = list(alphas or ()), list(betas or ())
    functions = []
    for name in wanted:
        with_alpha = name.lower() in {"leakyrelu", "elu", "thresholdedrelu", "affine", "scaledtanh", "hardsigmoid"}
        with_beta = name.lower() in {"affine", "scaledtanh", "hardsigmoid"}
        alpha = left.pop(0) if with_alpha and left else None
        beta = right.pop(0) if with_beta and right else None
        functions.append(_activation(name, alpha, beta))
    size = len(default)
    return [functions[index * size : (index + 1) * size] for index in range(directions)]


def run_steps(
    step: Step, state: State, inputs: torch.Tensor, lengths: torch.Tensor | None
) -> tuple[torch.Tensor, State]:
    """Apply a step to each time.

    Args:
        step: Of one time's inputs and the state; the first part of the state is the output.
        state: [batch, hidden] each.
        inputs: [time, batch, …].
        lengths: [batch], or None if all rows are of full length. Beyond its length a row's state stays and its
            outputs are zero.

    Returns:
        Outputs [time, batch, hidden], and the last state.
    """
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        times = torch.arange(inputs.shape[0], device=inputs.device)
        # Inductor only knows sizes that the steps name themselves.
        size = tuple(state[0].shape)

        def combine(carry: State, x: State) -> Combined:
            after, output = _masked(step, carry, x[0], x[1], lengths)
            return tuple(one.clone() for one in after), output.clone().reshape(size)

        first = tuple(one.clone(memory_format=torch.contiguous_format) for one in state)
        last, outputs = scan(combine, first, (inputs.contiguous(), times))
        return outputs, tuple(last)
    collected = []
    for time, x in enumerate(inputs.unbind(0)):
        state, output = _masked(step, state, x, time, lengths)
        collected.append(output)
    if not collected:
        return inputs.new_zeros((0, *state[0].shape)), state
    return torch.stack(collected), state


def _masked(
    step: Step, state: State, x: torch.Tensor, time: Any, lengths: torch.Tensor | None
) -> tuple[State, torch.Tensor]:
    after = step(x, state)
    if lengths is None:
        return after, after[0]
    running = (lengths > time).unsqueeze(1)
    kept = tuple(torch.where(running, new, old) for new, old in zip(after, state, strict=True))
    return kept, torch.where(running, after[0], torch.zeros_like(after[0]))


def _run_directions(
    data: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None, lengths: torch.Tensor | None,
    initial: Sequence[torch.Tensor | None], direction: str, layout: int, hidden: int,
    make_step: Callable[[int], Step],
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Run all directions; returns Y and the last states, in the layout that is asked for."""
    if layout:
        data = data.transpose(0, 1)
        initial = [one.transpose(0, 1) if one is not None else None for one in initial]
    outputs, states = [], []
    for index in range(weights.shape[0]):
        backwards = direction == "reverse" or index == 1
        series = _reversed(data, lengths) if backwards else data
        inputs = torch.matmul(series, weights[index].t())
        if bias is not None:
            inputs = inputs + bias[index][: bias.shape[1] // 2]
        state = tuple(data.new_zeros((data.shape[1], hidden)) if one is None else one[index] for one in initial)
        output, last = run_steps(make_step(index), state, inputs, lengths)
        outputs.append(_reversed(output, lengths) if backwards else output)
        states.append(last)
    result = torch.stack(outputs, 1)  # [time, directions, batch, hidden]
    finals = [torch.stack(parts) for parts in zip(*states, strict=True)]
    if layout:
        return (result.permute(2, 0, 1, 3), *(final.transpose(0, 1) for final in finals))
    return (result, *finals)


def _reversed(data: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    return data.flip(0) if lengths is None else reverse_sequence(data, lengths)


def _clipped(value: torch.Tensor, clip: float | None) -> torch.Tensor:
    return value if clip is None else value.clamp(-clip, clip)


def _recurrent_bias(bias: torch.Tensor | None, index: int, size: int, like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros(size) if bias is None else bias[index][size:]


@OPERATORS.add("RNN", versions=(14, 22), many=True, why=_MISSING)
def rnn(
    data: torch.Tensor, weights: torch.Tensor, recurrent: torch.Tensor, bias: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None, initial: torch.Tensor | None = None, *, activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None, activations: tuple[str, ...] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, layout: int = 0, count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """RNN."""
    hidden = hidden_size or recurrent.shape[2]
    functions = _functions(activations, ("Tanh",), weights.shape[0], activation_alpha, activation_beta)

    def make_step(index: int) -> Step:
        own, (activate,) = recurrent[index].t(), functions[index]
        extra = _recurrent_bias(bias, index, hidden, data)

        def step(x: torch.Tensor, state: State) -> State:
            return (activate(_clipped(x + torch.matmul(state[0], own) + extra, clip)),)

        return step

    return _run_directions(data, weights, bias, lengths, [initial], direction, layout, hidden, make_step)[:count]


@OPERATORS.add("GRU", versions=(14, 22), many=True, why=_MISSING)
def gru(
    data: torch.Tensor, weights: torch.Tensor, recurrent: torch.Tensor, bias: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None, initial: torch.Tensor | None = None, *, activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None, activations: tuple[str, ...] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, layout: int = 0, linear_before_reset: int = 0,
    count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """GRU with gates z, r, h; `linear_before_reset` says whether r acts before or after the recurrent product."""
    hidden = hidden_size or recurrent.shape[2]
    functions = _functions(activations, ("Sigmoid", "Tanh"), weights.shape[0], activation_alpha, activation_beta)

    def make_step(index: int) -> Step:
        own, (gate, activate) = recurrent[index].t(), functions[index]
        extra = _recurrent_bias(bias, index, 3 * hidden, data)

        def step(x: torch.Tensor, state: State) -> State:
            (h,) = state
            both = torch.matmul(h, own[:, : 2 * hidden]) + extra[: 2 * hidden] + x[:, : 2 * hidden]
            update, reset = torch.chunk(gate(_clipped(both, clip)), 2, 1)
            if linear_before_reset:
                rest = reset * (torch.matmul(h, own[:, 2 * hidden :]) + extra[2 * hidden :])
            else:
                rest = torch.matmul(reset * h, own[:, 2 * hidden :]) + extra[2 * hidden :]
            new = activate(_clipped(x[:, 2 * hidden :] + rest, clip))
            return ((1 - update) * new + update * h,)

        return step

    return _run_directions(data, weights, bias, lengths, [initial], direction, layout, hidden, make_step)[:count]


@OPERATORS.add("LSTM", versions=(14, 22), many=True, why=_MISSING)
def lstm(
    data: torch.Tensor, weights: torch.Tensor, recurrent: torch.Tensor, bias: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None, initial: torch.Tensor | None = None, initial_cell: torch.Tensor | None = None,
    peepholes: torch.Tensor | None = None, *, activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None, activations: tuple[str, ...] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, input_forget: int = 0, layout: int = 0, count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """LSTM with gates i, o, f, c."""
    hidden = hidden_size or recurrent.shape[2]
    names = ("Sigmoid", "Tanh", "Tanh")
    functions = _functions(activations, names, weights.shape[0], activation_alpha, activation_beta)

    def make_step(index: int) -> Step:
        own, (gate, activate, show) = recurrent[index].t(), functions[index]
        extra = _recurrent_bias(bias, index, 4 * hidden, data)
        looks = (0.0, 0.0, 0.0) if peepholes is None else torch.chunk(peepholes[index], 3)

        def step(x: torch.Tensor, state: State) -> State:
            h, c = state
            i, o, f, new = torch.chunk(x + torch.matmul(h, own) + extra, 4, 1)
            i = gate(_clipped(i + looks[0] * c, clip))
            f = 1 - i if input_forget else gate(_clipped(f + looks[2] * c, clip))
            cell = f * c + i * activate(_clipped(new, clip))
            o = gate(_clipped(o + looks[1] * cell, clip))
            return o * show(cell), cell

        return step

    states = [initial, initial_cell]
    return _run_directions(data, weights, bias, lengths, states, direction, layout, hidden, make_step)[:count]
