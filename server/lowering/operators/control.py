"""If, Loop and Scan while a module runs, or is traced.

Run directly they are Python's own `if` and `for`. Traced they become torch's higher-order operators: cond, while_loop,
and scan, which needs to know the number of steps beforehand, though not as a constant.

A body is a module that takes its own inputs and then what it uses of the graph around it, and returns a tuple.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.fx.experimental.symbolic_shapes import statically_known_true

from server.errors import GraphNotLowerable

Body = Callable[..., tuple[Any, ...]]
Values = tuple[Any, ...]
# (k, n): after step i the loop goes on only if i + k < n.
Bounds = tuple[tuple[Any, Any], ...]


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def _sizes(values: Values) -> Values:
    return tuple(tuple(value.shape) for value in values)


def _sized(values: Values, sizes: Values) -> Values:
    """The state in the sizes that it has anyway: Inductor only knows sizes that a step of a scan names itself."""
    return tuple(value.reshape(size) for value, size in zip(values, sizes, strict=True))


def branch(condition: Any, then: Body, otherwise: Body, of_then: Values, of_otherwise: Values) -> Values:
    """If.

    Args:
        condition: A truth value on the host, which decides once and for all while tracing, or a tensor.
        then: Computes the outputs if it is true.
        otherwise: Computes them if not.
        of_then: What `then` uses of the graph around it.
        of_otherwise: The same.
    """
    if isinstance(condition, torch.Tensor) and _is_traced():
        return tuple(
            torch.cond(
                condition.reshape(()),
                lambda: tuple(_own(value) for value in then(*of_then)),
                lambda: tuple(_own(value) for value in otherwise(*of_otherwise)),
                (),
            )
        )
    return tuple(then(*of_then) if condition else otherwise(*of_otherwise))


def _own(value: Any) -> Any:
    """A tensor that shares its memory with none that was given, as higher-order operators demand."""
    return value.clone(memory_format=torch.contiguous_format) if isinstance(value, torch.Tensor) else value


def loop(
    limit: Any, start: Any, state: Values, body: Body, captured: Values, *, constant: tuple[bool, ...],
    bounds: Bounds | None, outputs: int, like: torch.Tensor,
) -> Values:  # fmt: skip
    """Loop.

    Args:
        limit: The largest number of steps, or None.
        start: Whether there is a first step; None means yes.
        state: What goes from step to step.
        body: Of (step, condition, *state, *captured) makes (condition, *state, *outputs of this step).
        captured: What the body uses of the graph around it.
        constant: Which parts of the state no step changes.
        bounds: What ends the loop besides `limit`, where that follows from the number of the step alone.
        outputs: How many outputs a step makes.
        like: A tensor on the module's device.

    Returns:
        The last state, and the outputs of all steps, stacked.
    """
    if _is_traced():
        return _traced_loop(limit, start, state, body, captured, constant, bounds, like)
    step, going = 0, start is None or bool(start)
    count = None if limit is None else int(limit)
    collected: list[list[Any]] = []  # by step
    while going and (count is None or step < count):
        number = torch.scalar_tensor(step, dtype=torch.int64, device=like.device)
        going_on, *after = body(number, torch.ones((), dtype=torch.bool, device=like.device), *state, *captured)
        state, made = tuple(after[: len(state)]), after[len(state) :]
        collected.append(made)
        going, step = bool(going_on), step + 1
    if not collected and outputs:
        raise GraphNotLowerable("Loop", "", "a loop without a single step puts out nothing whose shape could be known")
    return (*state, *(torch.stack(column) for column in zip(*collected, strict=True)))


def _traced_loop(
    limit: Any, start: Any, state: Values, body: Body, captured: Values, constant: tuple[bool, ...],
    bounds: Bounds | None, like: torch.Tensor,
) -> Values:  # fmt: skip
    moving = tuple(value for value, fixed in zip(state, constant, strict=True) if not fixed)
    going = torch.ones((), dtype=torch.bool, device=like.device)

    def whole(values: Sequence[Any]) -> list[Any]:
        """The full state of its changing parts."""
        rest = iter(values)
        return [value if fixed else next(rest) for value, fixed in zip(state, constant, strict=True)]

    def changed(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(_own(value) for value, fixed in zip(values, constant, strict=True) if not fixed)

    begins = start is None or (not isinstance(start, torch.Tensor) and bool(start))
    if bounds is not None and limit is not None and not isinstance(limit, torch.Tensor) and begins:
        steps = limit
        for offset, end in bounds:
            # Inductor must find the size itself in what a loop is given, and not only what was made of it.
            if not statically_known_true(end - offset + 1 >= steps):
                steps = torch.sym_min(steps, torch.sym_max(end - offset, 0) + 1)

        sizes = _sizes(moving)

        def combine(carry: Values, number: torch.Tensor) -> Values:
            _, *after = body(number, going, *whole(carry), *captured)
            return _sized(changed(after[: len(state)]), sizes), tuple(_own(output) for output in after[len(state) :])

        last, outputs = scan(combine, tuple(_own(value) for value in moving), torch.arange(steps, device=like.device))
        return (*whole(last), *outputs)

    def goes_on(step: torch.Tensor, condition: torch.Tensor, *_: Any) -> torch.Tensor:
        return condition.clone() if limit is None else condition & (step < limit)

    def advance(step: torch.Tensor, condition: torch.Tensor, *values: Any) -> tuple[Any, ...]:
        following, *after = body(step, condition, *whole(values), *captured)
        if len(after) > len(state):
            raise GraphNotLowerable(
                "Loop",
                "",
                "it collects outputs of a number of steps that depends on the data, which has no compiled form",
            )
        return (step + 1, following.reshape(()).clone(), *changed(after))

    first = going if start is None else torch.as_tensor(start, device=like.device).reshape(()).to(torch.bool)
    zero = torch.zeros((), dtype=torch.int64, device=like.device)
    initial = (zero, first.clone(), *(_own(value) for value in moving))
    _, _, *last = while_loop(goes_on, advance, initial)  # type: ignore[no-untyped-call] # torch's
    return tuple(whole(last))


def scan_over(
    state: Values, series: Values, body: Body, captured: Values, *, input_axes: tuple[int, ...],
    input_directions: tuple[int, ...], output_axes: tuple[int, ...], output_directions: tuple[int, ...],
) -> Values:  # fmt: skip
    """Scan.

    Args:
        state: What goes from step to step.
        series: Tensors whose slices the steps take.
        body: Of (*state, *slices, *captured) makes (*state, *slices of outputs).
        captured: What the body uses of the graph around it.
        input_axes: Along which each of `series` is sliced.
        input_directions: 1 for those that go backwards.
        output_axes: Along which each output is put together.
        output_directions: 1 for those that are put together backwards.
    """
    rows = tuple(
        (one.movedim(axis, 0).flip(0) if backwards else one.movedim(axis, 0))
        for one, axis, backwards in zip(series, input_axes, input_directions, strict=True)
    )
    size = len(state)
    if _is_traced():
        sizes = _sizes(state)

        def combine(carry: Values, slices: Values) -> Values:
            after = body(*carry, *slices, *captured)
            return _sized(tuple(_own(one) for one in after[:size]), sizes), tuple(_own(one) for one in after[size:])

        last, outputs = scan(combine, tuple(_own(one) for one in state), tuple(_own(one) for one in rows))
    else:
        collected = []
        last = state
        for slices in zip(*(one.unbind(0) for one in rows), strict=True):
            after = body(*last, *slices, *captured)
            last = after[:size]
            collected.append(after[size:])
        outputs = [torch.stack(column) for column in zip(*collected, strict=True)]
    turned = [
        (one.flip(0) if backwards else one).movedim(0, axis)
        for one, axis, backwards in zip(outputs, output_axes, output_directions, strict=True)
    ]
    return (*last, *turned)
