"""What a request can break a compiled model with: positions outside of a table, and divisions of whole numbers by zero.

Compiled code looks at a position in the middle of a parallel loop, where nobody can catch what it throws, and a
division by zero is a signal: either takes the whole server with it. So positions and divisors that depend on a request
are made good ones first, and the graph gets one more output, which says whether any was not. The server then refuses
the request (`server.backends.aot_inductor`).

Works on the traced graph, so that it holds for every operator, whoever supplied it.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import fx
from torch.utils import _pytree as pytree

from server.lowering.exporting import Exported, NotExportable

_aten = torch.ops.aten
# Operators that look something up: the places of table, axis and positions among their arguments.
_ALONG: Final[Mapping[str, tuple[int, int | None, int]]] = {
    "aten::embedding": (0, None, 1), "aten::gather": (0, 1, 2), "aten::index_add": (0, 1, 2),
    "aten::index_copy": (0, 1, 2), "aten::index_fill": (0, 1, 2), "aten::index_select": (0, 1, 2),
    "aten::scatter": (0, 1, 2), "aten::scatter_add": (0, 1, 2), "aten::scatter_reduce": (0, 1, 2),
}  # fmt: skip
# Those that do so on several axes, where positions below 0 count from the end.
_ON_AXES: Final = frozenset({"aten::index", "aten::index_put"})
_DIVISIONS: Final = frozenset({"aten::div", "aten::floor_divide", "aten::fmod", "aten::remainder"})
# Higher-order operators: the arguments that are modules, those that a step hands to the next, and all others.
_BODIES: Final[Mapping[str, tuple[tuple[int, ...], int | None, tuple[int, ...]]]] = {
    "cond": ((1, 2), None, (3,)), "scan": ((0,), 1, (2, 3)), "while_loop": ((0, 1), 2, (3,)),
}  # fmt: skip


def guard(exported: Exported) -> bool:
    """Make a graph one that no request can break; whether it got one more output, a truth value, for that.

    Raises:
        NotExportable: a loop or a branch within it looks up what depends on a request.
    """
    graph = exported.graph.graph
    tainted = _tainted(exported.graph, [True] * sum(node.op == "placeholder" for node in graph.nodes))
    faults = [fault for node in list(graph.nodes) for fault in _made_good(graph, node, tainted)]
    if not faults:
        return False
    end = graph.output_node()
    with graph.inserting_before(end):
        any_fault = faults[0]
        for fault in faults[1:]:
            any_fault = graph.call_function(_aten.logical_or.default, (any_fault, fault))
    outputs: Any = end.args[0]
    end.args = ((*outputs, any_fault),)
    codegen: Any = graph._codegen  # noqa: SLF001 - torch has no other place for what a graph returns
    _, spec = pytree.tree_flatten((0,) * (len(outputs) + 1))
    codegen.pytree_info = codegen.pytree_info._replace(out_spec=spec)
    exported.graph.recompile()
    return True


def _made_good(graph: fx.Graph, node: fx.Node, tainted: set[fx.Node]) -> Iterator[fx.Node]:
    """Give a node good positions or divisors; for each, whether any was not good."""
    for table, axis, positions, swap in _lookups(node):
        if positions in tainted:
            with graph.inserting_before(node):
                good, fault = _in_range(graph, table, axis, positions, least=0 if _name(node) in _ALONG else None)
            swap(good)
            yield fault
    divisor = _divisor(node)
    if divisor in tainted:
        with graph.inserting_before(node):
            good, fault = _not_zero(graph, node.args[0], divisor)
        node.replace_input_with(divisor, good)
        yield fault


def _lookups(node: fx.Node) -> Iterator[tuple[fx.Node, Any, fx.Node, Callable[[fx.Node], None]]]:
    """What a node looks up: table, axis, positions, and what puts others in their place."""
    name = _name(node)
    args: Sequence[Any] = node.args
    if name in _ALONG:
        table, axis, at = _ALONG[name]
        if len(args) > at:
            yield args[table], 0 if axis is None else args[axis], args[at], partial(node.update_arg, at)
    elif name in _ON_AXES:
        axis = 0
        for place, positions in enumerate(args[1]):
            if positions is not None and _dtype(positions) in {torch.bool, torch.uint8}:
                axis += positions.meta["val"].dim()  # a mask, which stands for as many axes
                continue
            if positions is not None:
                yield args[0], axis, positions, partial(_put, node, place)
            axis += 1


def _put(node: fx.Node, place: int, good: fx.Node) -> None:
    places: Any = node.args[1]
    node.update_arg(1, [*places[:place], good, *places[place + 1 :]])


def _divisor(node: fx.Node) -> Any:
    """What a node divides whole numbers by; None if it is no such node."""
    if _name(node) not in _DIVISIONS or len(node.args) < 2 or not isinstance(node.args[1], fx.Node):
        return None
    floating = "val" not in node.meta or node.meta["val"].is_floating_point()
    return None if floating else node.args[1]


def _in_range(
    graph: fx.Graph, table: fx.Node, axis: Any, positions: fx.Node, least: int | None
) -> tuple[fx.Node, fx.Node]:
    size: Any = table.meta["val"].shape[axis] if "val" in table.meta else None
    if isinstance(size, int):
        low: Any = -size if least is None else least
        high: Any = size - 1
    else:
        size = graph.call_function(_aten.sym_size.int, (table, axis))
        low = graph.call_function(operator.neg, (size,)) if least is None else least
        high = graph.call_function(operator.sub, (size, 1))
    good = graph.call_function(_aten.clamp.default, (positions, low, high))
    return good, _any(graph, graph.call_function(_aten.ne.Tensor, (good, positions)))


def _not_zero(graph: fx.Graph, dividend: Any, divisor: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The least number by -1 is a signal as well, though its quotient is known: itself, as numbers wrap around."""
    zero = graph.call_function(_aten.eq.Scalar, (divisor, 0))
    one = graph.call_function(_aten.ones_like.default, (divisor,))
    instead = zero
    dtype = _dtype(divisor)
    if dtype is not None and dtype.is_signed and isinstance(dividend, fx.Node):
        least = graph.call_function(_aten.eq.Scalar, (dividend, torch.iinfo(dtype).min))
        back = graph.call_function(_aten.eq.Scalar, (divisor, -1))
        instead = graph.call_function(
            _aten.logical_or.default, (zero, graph.call_function(_aten.logical_and.default, (least, back)))
        )
    return graph.call_function(_aten.where.self, (instead, one, divisor)), _any(graph, zero)


def _any(graph: fx.Graph, truths: fx.Node) -> fx.Node:
    return graph.call_function(_aten.any.default, (truths,))


def _tainted(module: fx.GraphModule, given: Sequence[bool]) -> set[fx.Node]:
    """The nodes whose numbers depend on a request; sizes do not count, for each call's are checked.

    Args:
        module: A graph.
        given: Whether each of its inputs does.

    Raises:
        NotExportable: see `guard`.
    """
    tainted: set[fx.Node] = set()
    inputs = iter(given)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            depends = next(inputs)
        else:
            depends = node.target is not _aten.sym_size.int and any(one in tainted for one in node.all_input_nodes)
        if depends:
            tainted.add(node)
        if isinstance(node.target, torch._ops.HigherOrderOperator):  # noqa: SLF001 - its place
            _check_bodies(module, node, tainted)
    return tainted


def _check_bodies(module: fx.GraphModule, node: fx.Node, tainted: set[fx.Node]) -> None:
    """Refuse what cannot be told to the graph outside: a body has outputs of its own."""
    if str(node.target) not in _BODIES:
        return
    bodies, carried, rest = _BODIES[str(node.target)]
    args: Sequence[Any] = node.args
    state = [one in tainted for one in args[carried]] if carried is not None else []
    others = [one in tainted for place in rest if place < len(args) for one in args[place]]
    for place in bodies:
        body: Any = module.get_submodule(args[place].target)
        while True:
            found = _tainted(body, [*state, *others])
            after = [one in found for one in body.graph.output_node().args[0]][: len(state)]
            grown = [a or b for a, b in zip(state, [*after, *state[len(after) :]], strict=True)]
            if grown == state:
                break
            state = grown
        for one in body.graph.nodes:
            if any(positions in found for _, _, positions, _ in _lookups(one)) or _divisor(one) in found:
                raise NotExportable(
                    f"{_name(one).removeprefix('aten::')} in a loop or a branch depends on the request, which could "
                    "end the server by it: positions and divisors can be checked outside alone"
                )


def _name(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).rstrip("_") if schema is not None else ""


def _dtype(node: Any) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None
