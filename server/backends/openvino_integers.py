"""Which graphs OpenVINO's CPU plug-in computes faithfully although it has no 64-bit integers and checks no index.

Seen on 2026.4.1, all without an error: 64-bit integers become 32-bit ones and saturate; comparisons, sums and products
of matrices go through float32, which is exact up to 2^24; 8-bit integers do not wrap; doubles are computed as floats;
an index outside of its table reads zeros where TensorFlow refuses the request. So a graph is taken only if what it does
with integers is moving, comparing and looking up, and what its inputs must then hold is checked before each run.

Nothing here imports openvino: the graph is handed in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from server.arrays import Array
from server.errors import GraphNotLoadable, InvalidRequest, LeftToOthers

EXACT: Final = 1 << 24  # float32 holds every integer up to here
_INT32: Final = (1 << 31) - 1
_INTEGERS: Final = frozenset({"i4", "u4", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"})
_WIDE: Final = frozenset({"i32", "u32", "i64", "u64"})


class ElementType(Protocol):
    """openvino.Type."""

    def get_type_name(self) -> str:
        """E.g. "f32", "i64", "boolean"."""
        ...


class Dimension(Protocol):
    """openvino.Dimension."""

    @property
    def is_static(self) -> bool:
        """Whether it is one number."""
        ...

    def get_length(self) -> int:
        """That number."""
        ...


class PartialShape(Protocol):
    """openvino.PartialShape."""

    @property
    def rank(self) -> Dimension:
        """The number of dimensions."""
        ...

    def __getitem__(self, axis: int) -> Dimension:
        """One of them."""
        ...


class Output(Protocol):
    """openvino.Output."""

    def get_node(self) -> "Node":
        """Whose it is."""
        ...

    def get_index(self) -> int:
        """Its position there."""
        ...

    def get_element_type(self) -> ElementType:
        """Of its elements."""
        ...

    def get_partial_shape(self) -> PartialShape:
        """What is known of its shape."""
        ...


class Node(Protocol):
    """openvino.Node."""

    def get_type_name(self) -> str:
        """The operator."""
        ...

    def get_name(self) -> str:
        """Its own in the graph."""
        ...

    def get_friendly_name(self) -> str:
        """That of the ONNX node, or of the ONNX input."""
        ...

    def input_values(self) -> Sequence[Output]:
        """What it reads."""
        ...

    def outputs(self) -> Sequence[Output]:
        """What it makes."""
        ...


Constant = Callable[[Node], Array]


@dataclass(frozen=True, slots=True)
class Limits:
    """What inputs must hold so that the answers are right."""

    integers: frozenset[str]
    """Inputs whose values must be in float32's exact range; beyond it another runtime must answer."""
    indices: Mapping[str, tuple[int, int]]
    """Inputs all of whose values look something up: the smallest and the largest index; no runtime goes beyond."""
    lengths: Mapping[tuple[str, int], int]
    """The largest size of a dimension (input, axis) that positions are looked up for."""

    def check(self, inputs: Mapping[str, Array]) -> None:
        """See whether a batch is within the limits.

        Raises:
            InvalidRequest: an index is outside of its table, as TensorFlow would say.
            LeftToOthers: an integer is too large for this runtime, and only for it.
        """
        for (name, axis), longest in self.lengths.items():
            if inputs[name].shape[axis] > longest:
                size = inputs[name].shape[axis]
                msg = f"the model cannot compute this input: dimension {axis} of {name!r} is {size}, at most {longest}"
                raise InvalidRequest(msg)
        for name, (low, high) in self.indices.items():
            wrong = _outside(inputs[name], low, high)
            if wrong is not None:
                msg = f"the model cannot compute this input: {name!r} holds the index {wrong}, not in [{low}, {high}]"
                raise InvalidRequest(msg)
        for name in self.integers:
            wrong = _outside(inputs[name], -EXACT, EXACT)
            if wrong is not None:
                msg = f"OpenVINO computes integers exactly up to {EXACT}, and input {name!r} holds {wrong}"
                raise LeftToOthers(msg)


def _outside(array: Array, low: int, high: int) -> int | None:
    if array.size == 0:
        return None
    smallest, largest = int(array.min()), int(array.max())
    if smallest < low:
        return smallest
    return largest if largest > high else None


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of an operator's output."""

    data: bool = False  # it depends on what the inputs hold, and not only on their shapes
    inputs: frozenset[str] = frozenset()  # the integer inputs that its integers are taken from
    whole: bool = False  # every value of those is among its own, and nothing else is
    constant: bool = False
    large: bool = False  # a constant beyond 32 bits


def faithful(nodes: Iterable[Node], constant: Constant) -> Limits:
    """Find what a graph's inputs must hold so that its integers come out right.

    Args:
        nodes: In an order in which inputs come before what reads them.
        constant: Gives the values of a node of type Constant.

    Raises:
        GraphNotLoadable: it does something with integers or doubles that comes out wrong; names the operator.
    """
    return _Reader(constant).read(nodes)


# The first input is moved, and all of it.
_RESHAPING: Final = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Broadcast", "Tile", "Identity"})
# The first input is moved, but perhaps not all of it.
_TAKING: Final = frozenset({"Slice", "StridedSlice", "Split", "VariadicSplit", "Reverse", "ReduceMax", "ReduceMin"})
_COMPARING: Final = frozenset({"Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual", "Maximum",
                               "Minimum"})  # fmt: skip
_CONVERTING: Final = frozenset({"Convert", "ConvertLike"})
# Their answers are small integers, whatever they read.
_COUNTING: Final = frozenset({"NonZero", "OneHot", "MaxPool"})
_KEEPING_DOUBLES: Final = frozenset({"Identity", "Convert", "ConvertLike"})
_SUBGRAPHS: Final = frozenset({"Loop", "If", "TensorIterator"})
# Where else than in Gather an index may be outside, by the position of the indices.
_INDEXING: Final = {
    "GatherElements": 1, "GatherND": 1, "ScatterUpdate": 1, "ScatterElementsUpdate": 1, "ScatterNDUpdate": 1,
}  # fmt: skip


class _Reader:
    """Follows integers through a graph."""

    def __init__(self, constant: Constant) -> None:
        self._constant = constant
        self._values: dict[tuple[str, int], _Value] = {}
        self._integers: set[str] = set()
        self._indices: dict[str, tuple[int, int]] = {}
        self._lengths: dict[tuple[str, int], int] = {}

    def read(self, nodes: Iterable[Node]) -> Limits:
        for node in nodes:
            if node.get_type_name() == "Result":
                if self._of(node.input_values()[0]).large:
                    raise _refused(node, "gives a constant beyond 32 bits")
                continue
            value = self._value(node)
            for output in node.outputs():
                kind = output.get_element_type().get_type_name()
                one = value if kind in _INTEGERS else _Value(value.data, constant=value.constant)
                self._values[node.get_name(), output.get_index()] = one
        return Limits(frozenset(self._integers - set(self._indices)), self._indices, self._lengths)

    def _of(self, output: Output) -> _Value:
        return self._values[output.get_node().get_name(), output.get_index()]

    def _value(self, node: Node) -> _Value:
        kind = node.get_type_name()
        if kind == "Parameter":
            return self._parameter(node)
        if kind == "Constant":
            return self._read_constant(node)
        if kind in _SUBGRAPHS:
            raise _refused(node, "is control flow, whose integers are not followed")
        sources = node.input_values()
        values = [self._of(source) for source in sources]
        if kind == "ShapeOf":
            return _Value()
        doubles = [s.get_element_type().get_type_name() == "f64" for s in sources]
        if kind not in _KEEPING_DOUBLES and any(v.data and d for v, d in zip(values, doubles, strict=True)):
            raise _refused(node, "computes with doubles, as floats")
        if kind == "Gather":
            return self._gather(node, sources, values)
        if kind in _INDEXING and not values[_INDEXING[kind]].constant:
            raise _refused(node, "looks up what may not be there")
        if not any(value.data for value in values):
            return _Value(constant=all(value.constant for value in values), large=any(value.large for value in values))
        return self._of_data(node, sources, values)

    def _of_data(self, node: Node, sources: Sequence[Output], values: Sequence[_Value]) -> _Value:
        kind = node.get_type_name()
        integers = [s.get_element_type().get_type_name() in _INTEGERS for s in sources]
        moved: Sequence[int] = range(len(sources))
        if kind in _RESHAPING or kind in _TAKING or kind in _CONVERTING or kind in _COUNTING or kind == "TopK":
            moved = (0,)
        elif kind not in _COMPARING and kind not in {"Concat", "Select"}:
            moved = ()
        if any(
            v.data and integer for i, (v, integer) in enumerate(zip(values, integers, strict=True)) if i not in moved
        ):
            raise _refused(node, "computes with integers of the request")
        makes = {output.get_element_type().get_type_name() for output in node.outputs()} & _INTEGERS
        if makes and not moved:
            raise _refused(node, "makes integers of the request's numbers")
        if makes and any(values[i].large for i in moved):
            raise _refused(node, "has a constant beyond 32 bits")
        if kind in _CONVERTING and makes:
            self._check_conversion(node, sources[0])
        inputs = frozenset().union(*(values[i].inputs for i in moved)) if moved else frozenset()
        whole = kind in _RESHAPING or kind in _CONVERTING
        whole = (whole and values[0].whole) or (kind == "Concat" and all(value.whole for value in values))
        return _Value(data=True, inputs=frozenset() if kind in _COUNTING else inputs, whole=whole)

    def _parameter(self, node: Node) -> _Value:
        kind = node.outputs()[0].get_element_type().get_type_name()
        name = node.get_friendly_name()
        if kind in _WIDE:
            self._integers.add(name)
        inputs = frozenset({name}) if kind in _INTEGERS else frozenset[str]()
        return _Value(data=True, inputs=inputs, whole=kind in _INTEGERS)

    def _read_constant(self, node: Node) -> _Value:
        large = False
        if node.outputs()[0].get_element_type().get_type_name() in {"i64", "u64", "u32"}:
            numbers = self._constant(node)
            large = numbers.size > 0 and (int(numbers.max()) > _INT32 or int(numbers.min()) < -_INT32 - 1)
        return _Value(constant=True, large=large)

    def _check_conversion(self, node: Node, source: Output) -> None:
        """A float beyond the range, or an integer that a smaller type cuts, comes out otherwise than in TensorFlow."""
        before = source.get_element_type().get_type_name()
        after = node.outputs()[0].get_element_type().get_type_name()
        if before not in _INTEGERS and before != "boolean":
            raise _refused(node, f"makes {after} of {before}")
        if before in _INTEGERS and after != before and after not in {"i32", "i64"}:
            raise _refused(node, f"makes {after} of {before}")

    def _gather(self, node: Node, sources: Sequence[Output], values: Sequence[_Value]) -> _Value:
        table, index = values[0], values[1]
        rows = self._rows(node, sources)
        if not index.constant:
            self._limit(node, rows, sources[1], index)
        elif rows is None and not set(np.unique(self._numbers(node, sources[1])).tolist()) <= {0, -1}:
            raise _refused(node, "takes what a short input does not have")
        if table.large and (table.data or index.data):
            raise _refused(node, "has a constant beyond 32 bits")
        constant = table.constant and index.constant
        return _Value(table.data or index.data, table.inputs, constant=constant, large=table.large)

    def _rows(self, node: Node, sources: Sequence[Output]) -> int | None:
        """The size of the dimension that is looked up in, if the graph says it."""
        shape = sources[0].get_partial_shape()
        axis = int(self._numbers(node, sources[2]).reshape(-1)[0])
        if not shape.rank.is_static or not shape[axis % shape.rank.get_length()].is_static:
            return None
        return shape[axis % shape.rank.get_length()].get_length()

    def _limit(self, node: Node, rows: int | None, index: Output, value: _Value) -> None:
        if rows is None:
            raise _refused(node, "looks up in a table of unknown size")
        if value.data and value.whole:
            for name in value.inputs:
                low, high = self._indices.get(name, (-rows, rows - 1))
                self._indices[name] = (max(low, -rows), min(high, rows - 1))
            return
        dimension = None if value.data else self._positions(node, index)
        if dimension is None:
            raise _refused(node, "looks up indices that are not an input's own")
        self._lengths[dimension] = min(self._lengths.get(dimension, rows), rows)

    def _positions(self, node: Node, output: Output) -> tuple[str, int] | None:
        """The (input, axis) whose size n gives these indices as 0 … n-1."""
        source = _through(output)
        if source.get_node().get_type_name() != "Range":
            return None
        start, stop, step = source.get_node().input_values()
        if not (self._is(node, start, 0) and self._is(node, step, 1)):
            return None
        size = _through(stop).get_node()
        if size.get_type_name() not in {"Gather", "Slice", "StridedSlice"}:
            return None
        shape, position, *_ = size.input_values()
        origin = _through(shape).get_node()
        if origin.get_type_name() != "ShapeOf" or not self._of(position).constant:
            return None
        axis = self._numbers(node, position).reshape(-1)
        return self._dimension(node, origin.input_values()[0], int(axis[0])) if axis.size == 1 else None

    def _dimension(self, node: Node, output: Output, axis: int) -> tuple[str, int] | None:
        """The (input, axis) that a dimension comes from, looked for through conversions and look-ups of whole rows."""
        while output.get_node().get_type_name() != "Parameter":
            source = output.get_node()
            if source.get_type_name() == "Gather":
                table, index, along = source.input_values()
                rank = index.get_partial_shape().rank
                if not rank.is_static or not 0 <= axis < rank.get_length() or not self._is(node, along, 0):
                    return None
                output = index if self._of(table).constant else output
            elif source.get_type_name() in _CONVERTING:
                output = source.input_values()[0]
            if output.get_node().get_name() == source.get_name():
                return None
        return output.get_node().get_friendly_name(), axis

    def _is(self, node: Node, output: Output, number: int) -> bool:
        return self._of(output).constant and self._numbers(node, output).reshape(-1).tolist() == [number]

    def _numbers(self, node: Node, output: Output) -> Array:
        source = _through(output).get_node()
        if source.get_type_name() != "Constant":
            raise _refused(node, "has indices that are not plain constants")
        return self._constant(source)


def _through(output: Output) -> Output:
    """What was only converted or reshaped to give this."""
    while output.get_node().get_type_name() in {"Convert", "Squeeze", "Unsqueeze", "Reshape"}:
        output = output.get_node().input_values()[0]
    return output


def _refused(node: Node, reason: str) -> GraphNotLoadable:
    return GraphNotLoadable(
        f"OpenVINO would not give TensorFlow's numbers: {node.get_type_name()} {node.get_friendly_name()!r} {reason}"
    )
