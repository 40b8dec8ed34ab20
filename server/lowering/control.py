"""Control flow in a graph: bodies become modules of their own, and what is known of a loop is found out here."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from onnx import TensorProto, numpy_helper

from server.lowering.graph import Graph, Node
from server.lowering.operators.control import branch, loop, scan_over

if TYPE_CHECKING:
    from server.lowering.walk import Walk

_NUMBERS: Final = frozenset({TensorProto.INT32, TensorProto.INT64})


def lower_if(node: Node, walk: "Walk") -> None:
    """If: both branches as modules."""
    then, otherwise = node.attributes["then_branch"], node.attributes["else_branch"]
    values = walk.call(
        branch, _either(node.inputs[0], walk), walk.body(then, f"{node.name}/then"),
        walk.body(otherwise, f"{node.name}/else"), walk.captured(then), walk.captured(otherwise), name=node.outputs[0],
    )  # fmt: skip
    walk.bind_all(node, values)


def lower_loop(node: Node, walk: "Walk") -> None:
    """Loop: its body as a module, with what ends it."""
    body: Graph = node.attributes["body"]
    limit = _either(node.inputs[0], walk) if node.inputs[0] else None
    start = _either(node.inputs[1], walk) if node.inputs[1] else None
    state = tuple(walk.made(name) for name in node.inputs[2:])
    constant = tuple(
        _source(body, given) == taken
        for taken, given in zip(body.inputs[2:], body.outputs[1 : 1 + len(state)], strict=True)
    )
    values = walk.call(
        loop, limit, start, state, walk.body(body, node.name), walk.captured(body), name=node.outputs[0],
        constant=constant, bounds=_Counting(node, body, walk).bounds(body.outputs[0]),
        outputs=len(body.outputs) - 1 - len(state), like=walk.anchor(),
    )  # fmt: skip
    walk.bind_all(node, values)


def lower_scan(node: Node, walk: "Walk") -> None:
    """Scan: its body as a module."""
    if node.version < 9:
        raise node.refusal("version 8 of the operator has a batch axis")
    body: Graph = node.attributes["body"]
    count = node.attributes["num_scan_inputs"]
    size = len(node.inputs) - count
    outputs = len(node.outputs) - size
    values = walk.call(
        scan_over, tuple(walk.made(name) for name in node.inputs[:size]),
        tuple(walk.tensor(name) for name in node.inputs[size:]), walk.body(body, node.name), walk.captured(body),
        name=node.outputs[0],
        input_axes=node.attributes.get("scan_input_axes", (0,) * count),
        input_directions=node.attributes.get("scan_input_directions", (0,) * count),
        output_axes=node.attributes.get("scan_output_axes", (0,) * outputs),
        output_directions=node.attributes.get("scan_output_directions", (0,) * outputs),
    )  # fmt: skip
    walk.bind_all(node, values)


def _either(name: str, walk: "Walk") -> Any:
    """A value on the host if it is there anyway, else as a tensor."""
    if name in walk.host_names or walk.graph.constant(name) is not None:
        return walk.number(name)
    return walk.tensor(name)


def _source(graph: Graph, name: str) -> str:
    """The value that a chain of Identity passes on."""
    makers = {output: node for node in graph.nodes for output in node.outputs}
    while name in makers and makers[name].operator == "Identity":
        name = makers[name].inputs[0]
    return name


class _Counting:
    """Finds out whether the number of a step alone decides if a loop goes on.

    TensorFlow's loops over time do: their condition is a conjunction of "a counter is less than a number".
    """

    def __init__(self, node: Node, body: Graph, walk: "Walk") -> None:
        self.body, self.walk = body, walk
        self.makers = {output: one for one in body.nodes for output in one.outputs}
        self.initial = dict(zip(body.inputs[2:], node.inputs[2:], strict=True))
        self.after = dict(zip(body.inputs[2:], body.outputs[1:], strict=False))

    def bounds(self, condition: str) -> tuple[tuple[Any, Any], ...] | None:
        """(k, n) of all conditions: after step i the loop goes on only if i + k < n. None if there are others."""
        condition = _source(self.body, condition)
        if condition == self.body.inputs[1]:
            return ()
        constant = self.body.constant(condition)
        if constant is not None:
            return () if numpy_helper.to_array(constant).all() else None
        maker = self.makers.get(condition)
        if maker is None:
            return None
        if maker.operator == "And":
            parts = [self.bounds(name) for name in maker.inputs]
            return None if None in parts else tuple(bound for part in parts if part is not None for bound in part)
        if maker.operator == "Less":
            offset, end = self._counter(maker.inputs[0]), self._number(maker.inputs[1])
            return None if offset is None or end is None else ((offset, end),)
        return None

    def _plain(self, name: str) -> str:
        """A value without the casts that a comparison puts around it."""
        while (maker := self.makers.get(name)) is not None and maker.operator in {"Cast", "Identity"}:
            name = maker.inputs[0]
        return name

    def _number(self, name: str) -> Any:
        """A whole number that no step changes, on the host; None if it is no such number."""
        name = self._plain(name)
        if name in self.initial and _source(self.body, self.after[name]) == name:
            name = self.initial[name]
        walk = self.walk
        known = name in walk.host_names or walk.graph.constant(name) is not None
        if not known or self.walk.graph.type_of(name).dtype not in _NUMBERS:
            return None
        value = walk.number(name)
        return None if isinstance(value, tuple) else value

    def _counter(self, name: str) -> Any:
        """K of a value that is i + k in step i, on the host; None for other values."""
        name = self._plain(name)
        if name == self.body.inputs[0]:
            return 0
        maker = self.makers.get(name)
        if maker is not None and maker.operator == "Add":
            for one, other in (maker.inputs, maker.inputs[::-1]):
                offset, extra = self._counter(one), self._literal(other)
                if offset is not None and extra is not None:
                    return offset + extra if isinstance(offset, int) else None
            return None
        if name in self.initial and self._steps_by_one(name):
            return self._literal(self.initial[name])
        return None

    def _steps_by_one(self, name: str) -> bool:
        maker = self.makers.get(_source(self.body, self.after[name]))
        if maker is None or maker.operator != "Add" or name not in maker.inputs:
            return False
        other = [one for one in maker.inputs if one != name]
        return len(other) == 1 and self._literal(other[0]) == 1

    def _literal(self, name: str) -> int | None:
        """A constant whole number."""
        tensor = self.body.constant(name)
        if tensor is None or tensor.data_type not in _NUMBERS or len(tensor.dims) > 0:
            return None
        return int(numpy_helper.to_array(tensor))


CONTROL: Final[Mapping[str, Callable[[Node, "Walk"], None]]] = {
    "If": lower_if, "Loop": lower_loop, "Scan": lower_scan,
}  # fmt: skip
