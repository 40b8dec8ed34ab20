"""What is known of a graph's values before it runs: dtypes, shapes, and the elements of those that hold shapes.

ONNX's own inference gives up on a Reshape to a computed shape, and so on all that follows. Here the elements of integer
tensors are followed symbolically (`sizes`), and single operators are left to ONNX's functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import onnx
import onnx_ir as ir
from onnx import defs, shape_inference

from converter.graph.sizes import Product, Shape, Size, named, product, reshaped

Elements = tuple[Size | None, ...]

# Ends of slices from here on mean the end, whatever the size: TensorFlow's masks write this.
TO_THE_END: Final = 1_000_000_000

_MOST_ELEMENTS: Final = 64  # of an integer tensor that may be a shape
_INTEGERS: Final = frozenset({ir.DataType.INT32, ir.DataType.INT64})


@dataclass
class Facts:
    """What is known of a main graph's values; a value that is missing is unknown.

    Attributes:
        types: Dtypes.
        shapes: Shapes, for values of known rank.
        elements: Elements of integer tensors of rank 0 or 1, None for each of which nothing is known.
    """

    types: dict[ir.Value, ir.DataType] = field(default_factory=dict)
    shapes: dict[ir.Value, Shape] = field(default_factory=dict)
    elements: dict[ir.Value, Elements] = field(default_factory=dict)
    _sizes: dict[str, Size] = field(default_factory=dict)
    _unknown: int = 0

    def rank(self, value: ir.Value | None) -> int | None:
        """The number of dimensions, if known."""
        shape = None if value is None else self.shapes.get(value)
        return None if shape is None else len(shape)

    def unknown(self) -> Product:
        """A size of which nothing is known."""
        self._unknown += 1
        return named(f"?{self._unknown}")

    def encode(self, size: Size) -> int | str:
        """A size as ONNX's functions take it; they pass names on."""
        if isinstance(size, int):
            return size
        self._sizes[str(size)] = size
        return str(size)

    def decode(self, dimension: onnx.TensorShapeProto.Dimension) -> Size:
        """A size as ONNX's functions give it."""
        if dimension.HasField("dim_value"):
            return int(dimension.dim_value)
        if not dimension.dim_param:
            return self.unknown()
        return self._sizes.get(dimension.dim_param, named(dimension.dim_param))


def gather_facts(model: ir.Model) -> Facts:
    """Follow shapes through a model's main graph."""
    facts = Facts()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _declare(facts, value)
    nested = any(attribute.type in _GRAPHS for node in model.graph for attribute in node.attributes.values())
    inferred = {value.name: value for value in _inferred(model)} if nested else {}
    for node in model.graph:
        _infer(facts, node, model, inferred)
    return facts


def constant_elements(value: ir.Value | None) -> tuple[int, ...] | None:
    """The elements of a small constant integer tensor."""
    tensor = None if value is None or value.is_graph_input() else value.const_value
    if tensor is None or tensor.dtype not in _INTEGERS or tensor.size > _MOST_ELEMENTS:
        return None
    return tuple(int(element) for element in tensor.numpy().reshape(-1))


def _declare(facts: Facts, value: ir.Value) -> None:
    tensor = value.const_value
    shape = value.shape if tensor is None else tensor.shape
    dtype = value.dtype if tensor is None else tensor.dtype
    if dtype is not None:
        facts.types[value] = dtype
    if shape is not None:
        facts.shapes[value] = tuple(_size(facts, size) for size in shape)
    elements = constant_elements(value)
    if elements is not None and facts.rank(value) in {0, 1}:
        facts.elements[value] = elements


def _size(facts: Facts, dimension: int | ir.SymbolicDimProtocol) -> Size:
    if isinstance(dimension, int):
        return dimension
    return named(dimension.value) if isinstance(dimension.value, str) else facts.unknown()


def _inferred(model: ir.Model) -> Sequence[onnx.ValueInfoProto]:
    """ONNX's own answers: dtypes of everything, and shapes behind operators with graphs inside."""
    light = onnx.ModelProto()
    light.CopyFrom(without_weights(model))
    try:
        whole = shape_inference.infer_shapes(light, data_prop=True)
    except shape_inference.InferenceError:
        return ()
    return [*whole.graph.value_info, *whole.graph.output]


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with inputs in place of its large initializers: what shape inference and the checker need of it."""
    large = {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.size > _MOST_ELEMENTS
    }
    for name, value in large.items():
        del model.graph.initializers[name]
        model.graph.inputs.append(value)
    try:
        return ir.serde.serialize_model(model)
    finally:
        for name, value in large.items():
            model.graph.inputs.remove(value)
            model.graph.initializers[name] = value


def _infer(facts: Facts, node: ir.Node, model: ir.Model, inferred: Mapping[str, onnx.ValueInfoProto]) -> None:
    for output in node.outputs:
        if output.name and output.name in inferred:
            _take(facts, output, inferred[output.name].type)
    nested = any(attribute.type in _GRAPHS for attribute in node.attributes.values())
    if not nested and not _infer_elementwise(facts, node):
        _infer_with_onnx(facts, node, model)
    output = node.outputs[0]
    elements = _elements(facts, node)
    if elements is not None and len(elements) <= _MOST_ELEMENTS:
        facts.elements[output] = elements
    shape = _SHAPES[node.op_type](facts, node) if node.op_type in _SHAPES and not node.domain else None
    if shape is not None:
        facts.shapes[output] = tuple(facts.unknown() if size is None else size for size in shape)


_GRAPHS: Final = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


# What they give has the dtype and shape of what they take.
_ELEMENTWISE: Final = frozenset({
    "Abs", "Erf", "Exp", "Gelu", "Identity", "LayerNormalization", "Log", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid",
    "Softmax", "Sqrt", "Tanh", "Add", "Div", "Mul", "Sub",
})  # fmt: skip


def _infer_elementwise(facts: Facts, node: ir.Node) -> bool:
    """Answer for the commonest operators without asking ONNX: most of the time goes there."""
    if node.op_type not in _ELEMENTWISE or node.domain or node.inputs[0] is None or len(node.outputs) != 1:
        return False
    whole = node.inputs[0]
    others = [value for value in node.inputs[1:] if value is not None]
    if node.op_type != "LayerNormalization" and any(
        facts.shapes.get(o) not in {(), facts.shapes.get(whole)} for o in others
    ):
        return False
    if whole in facts.shapes and whole in facts.types:
        facts.types[node.outputs[0]], facts.shapes[node.outputs[0]] = facts.types[whole], facts.shapes[whole]
    return whole in facts.shapes and whole in facts.types


def _infer_with_onnx(facts: Facts, node: ir.Node, model: ir.Model) -> None:
    opset = model.opset_imports.get(node.domain)
    inputs = [value for value in node.inputs if value is not None]
    if opset is None or not defs.has(node.op_type, opset, node.domain) or any(i not in facts.types for i in inputs):
        return
    schema = defs.get_schema(node.op_type, opset, node.domain)
    types = {str(value.name): _type_proto(facts, value) for value in inputs}
    data = {
        str(value.name): onnx.numpy_helper.from_array(value.const_value.numpy())
        for value in inputs
        if value.const_value is not None and constant_elements(value) is not None
    }
    try:
        answers = shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid(node.domain, opset)],
            ir_version=model.ir_version,
        )
    except (shape_inference.InferenceError, RuntimeError):
        return  # what ONNX cannot say of one operator is not known
    for output in node.outputs:
        if output.name in answers:
            _take(facts, output, answers[output.name])


def _type_proto(facts: Facts, value: ir.Value) -> onnx.TypeProto:
    shape = facts.shapes.get(value)
    dimensions = None if shape is None else [facts.encode(size) for size in shape]
    return onnx.helper.make_tensor_type_proto(facts.types[value], dimensions)


def _take(facts: Facts, value: ir.Value, answer: onnx.TypeProto) -> None:
    tensor = answer.tensor_type
    if tensor.elem_type:
        facts.types[value] = ir.DataType(tensor.elem_type)
    if tensor.HasField("shape"):
        facts.shapes[value] = tuple(map(facts.decode, tensor.shape.dim))


def _elements(facts: Facts, node: ir.Node) -> Elements | None:
    rule = _ELEMENTS.get(node.op_type)
    if rule is None or node.domain or facts.types.get(node.outputs[0]) not in _INTEGERS:
        return None
    return rule(facts, node)


def _known(facts: Facts, value: ir.Value | None) -> Elements | None:
    return None if value is None else facts.elements.get(value)


def _same(facts: Facts, node: ir.Node) -> Elements | None:
    return _known(facts, node.inputs[0]) if facts.rank(node.outputs[0]) in {0, 1} else None


def _shape(facts: Facts, node: ir.Node) -> Elements | None:
    value = node.inputs[0]
    shape = None if value is None else facts.shapes.get(value)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", 0) if "end" in node.attributes else None
    return None if shape is None else shape[start:end]


def _gather(facts: Facts, node: ir.Node) -> Elements | None:
    source, chosen = _known(facts, node.inputs[0]), constant_elements(node.inputs[1])
    if source is None or chosen is None or facts.rank(node.inputs[0]) != 1 or facts.rank(node.outputs[0]) not in {0, 1}:
        return None
    return tuple(source[index] for index in chosen) if all(-len(source) <= i < len(source) for i in chosen) else None


def _slice(facts: Facts, node: ir.Node) -> Elements | None:
    source = _known(facts, node.inputs[0])
    bounds = [constant_elements(value) for value in node.inputs[1:]]
    if source is None or len(bounds) < 2 or any(bound is None or len(bound) != 1 for bound in bounds):
        return None
    start, end = bounds[0], bounds[1]
    step = bounds[3] if len(bounds) > 3 else (1,)
    assert start is not None and end is not None and step is not None  # noqa: S101, PT018 - seen above
    if step[0] < 0:
        return None  # its end counts otherwise than Python's
    return source[start[0] : end[0] : step[0]]


def _concat(facts: Facts, node: ir.Node) -> Elements | None:
    parts = [_known(facts, value) for value in node.inputs]
    if facts.rank(node.outputs[0]) != 1 or any(part is None for part in parts):
        return None
    return tuple(element for part in parts for element in part or ())


def _reduce_prod(facts: Facts, node: ir.Node) -> Elements | None:
    source = _known(facts, node.inputs[0])
    known = [element for element in source or () if element is not None]
    if source is None or facts.rank(node.inputs[0]) != 1 or len(known) != len(source):
        return None
    return (product(known),)


def _pairwise(combine: Callable[[Size, Size], Size | None]) -> Callable[[Facts, ir.Node], Elements | None]:
    def rule(facts: Facts, node: ir.Node) -> Elements | None:
        if len(node.inputs) != 2 or facts.rank(node.outputs[0]) not in {0, 1}:
            return None
        left, right = (_known(facts, value) for value in node.inputs)
        if left is None or right is None or (len(left) != len(right) and 1 not in {len(left), len(right)}):
            return None
        length = max(len(left), len(right)) if left and right else 0
        pairs = zip(*(side * (length // max(len(side), 1)) for side in (left, right)), strict=True)
        return tuple(None if a is None or b is None else combine(a, b) for a, b in pairs)

    return rule


def _numbers(combine: Callable[[int, int], int]) -> Callable[[Size, Size], Size | None]:
    return lambda a, b: combine(a, b) if isinstance(a, int) and isinstance(b, int) else None


def _extreme(choose: Callable[[int, int], int]) -> Callable[[Size, Size], Size | None]:
    return lambda a, b: a if a == b else _numbers(choose)(a, b)


_ELEMENTS: Final[Mapping[str, Callable[[Facts, ir.Node], Elements | None]]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "ReduceProd": _reduce_prod,
    "Mul": _pairwise(lambda a, b: product([a, b])),
    "Add": _pairwise(_numbers(lambda a, b: a + b)),
    "Sub": _pairwise(_numbers(lambda a, b: a - b)),
    "Max": _pairwise(_extreme(max)),
    "Min": _pairwise(_extreme(min)),
    **dict.fromkeys(("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"), _same),
}


def _reshape_shape(facts: Facts, node: ir.Node) -> Sequence[Size | None] | None:
    source = None if node.inputs[0] is None else facts.shapes.get(node.inputs[0])
    target = _known(facts, node.inputs[1])
    if source is None or target is None or node.attributes.get_int("allowzero", 0) == 1:
        return None
    return reshaped(source, target)


def _expand_shape(facts: Facts, node: ir.Node) -> Sequence[Size | None] | None:
    source = None if node.inputs[0] is None else facts.shapes.get(node.inputs[0])
    target = _known(facts, node.inputs[1])
    if source is None or target is None:
        return None
    length = max(len(source), len(target))
    sides = [(1,) * (length - len(side)) + tuple(side) for side in (source, target)]
    return [b if a == 1 else a if b in {1, a} or isinstance(a, int) else None for a, b in zip(*sides, strict=True)]


def _filled_shape(facts: Facts, node: ir.Node) -> Sequence[Size | None] | None:
    return _known(facts, node.inputs[0])


def _tile_shape(facts: Facts, node: ir.Node) -> Sequence[Size | None] | None:
    source = None if node.inputs[0] is None else facts.shapes.get(node.inputs[0])
    repeats = _known(facts, node.inputs[1])
    if source is None or repeats is None or len(source) != len(repeats):
        return None
    return [None if times is None else product([size, times]) for size, times in zip(source, repeats, strict=True)]


def _range_shape(facts: Facts, node: ir.Node) -> Sequence[Size | None] | None:
    start, limit, step = (_known(facts, value) for value in node.inputs)
    return None if (start, step) != ((0,), (1,)) else limit


def _slice_shape(facts: Facts, node: ir.Node) -> Sequence[Size | None] | None:
    """ONNX's answer, but a slice that takes all of a dimension leaves its size."""
    source = None if node.inputs[0] is None else facts.shapes.get(node.inputs[0])
    answer = facts.shapes.get(node.outputs[0])
    bounds = [constant_elements(value) for value in node.inputs[1:]]
    if source is None or answer is None or any(bound is None for bound in bounds):
        return None
    starts, ends, *rest = [bound or () for bound in bounds]
    axes = rest[0] if rest else tuple(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else (1,) * len(starts)
    shape: list[Size] = list(answer)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if start == 0 and end >= TO_THE_END and step == 1:
            shape[axis] = source[axis]
    return shape


_SHAPES: Final[Mapping[str, Callable[[Facts, ir.Node], Sequence[Size | None] | None]]] = {
    "Range": _range_shape,
    "Slice": _slice_shape,
    "Reshape": _reshape_shape,
    "Expand": _expand_shape,
    "ConstantOfShape": _filled_shape,
    "Tile": _tile_shape,
}
