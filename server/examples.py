"""Rows of tf.Example to the tensors of a signature. Pure.

TensorFlow Serving feeds serialized Examples to a parser inside the graph. A graph that takes plain tensors has none, so
the features are read here: a feature's name is the input's alias, each Example is one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protos.serving import inference_pb2
from protos.tensorflow import example_pb2
from server.arrays import Array
from server.errors import InvalidRequest
from server.signatures import InputSpec
from server.wire.dtypes import SERVED, name_of

# Which list of a Feature holds values of a dtype kind, as tf.io.parse_example has it: only these three types exist.
_LISTS = {"f": "float_list", "i": "int64_list", "u": "int64_list", "b": "int64_list", "O": "bytes_list"}

# A context counts once on the wire and once per row in a tensor; this bounds what that may come to.
_MAX_COPIED_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Rows:
    """The Examples of a request, and the context that holds for those that have no feature of their own."""

    examples: Sequence[example_pb2.Example]
    context: example_pb2.Example

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.examples)

    def features(self, name: str) -> list[example_pb2.Feature | None]:
        """The feature of each row. The context is never copied: a small request could ask for huge copies."""
        shared = self.context.features.feature.get(name)
        return [example.features.feature.get(name, shared) for example in self.examples]


def rows_of(message: inference_pb2.Input) -> Rows:
    """The rows of a request.

    Raises:
        InvalidRequest: There are none; the text is TensorFlow Serving's.
    """
    if message.HasField("example_list_with_context"):
        rows = Rows(message.example_list_with_context.examples, message.example_list_with_context.context)
    else:
        rows = Rows(message.example_list.examples, example_pb2.Example())
    if not len(rows):
        raise InvalidRequest("Input is empty.")
    return rows


def columns(rows: Rows, inputs: Sequence[InputSpec]) -> dict[str, Array]:
    """One array per input, [number of rows, ...], by alias.

    Raises:
        InvalidRequest: A feature is missing, of another type, or has a number of values that the input cannot hold.
    """
    if len(inputs) == 1 and inputs[0].alias == "inputs" and name_of(inputs[0].dtype) == "string":
        return {"inputs": _serialized(rows)}
    found = {spec.alias: rows.features(spec.alias) for spec in inputs}
    return {
        spec.alias: _column(found[spec.alias], spec)
        for spec in inputs
        if spec.default is None or any(feature is not None for feature in found[spec.alias])
    }


def _serialized(rows: Rows) -> Array:
    """TensorFlow Serving's own form: one tensor of serialized Examples, the context put before each."""
    context = rows.context.SerializeToString(deterministic=True)
    if len(context) * len(rows) > _MAX_COPIED_BYTES:
        raise InvalidRequest(f"a context of {len(context)} bytes is too large for {len(rows)} Examples")
    return _objects([context + example.SerializeToString(deterministic=True) for example in rows.examples])


def _column(features: Sequence[example_pb2.Feature | None], spec: InputSpec) -> Array:
    kind = SERVED[spec.dtype]
    field = _LISTS.get("f" if kind.name == "bfloat16" else kind.dtype.kind)
    if field is None:
        raise InvalidRequest(f"Feature: {spec.alias} cannot have data type {kind.name} in an Example")
    values = [_values(feature, spec, field) for feature in features]
    widths = {len(row) for row in values}
    if len(widths) > 1:
        raise InvalidRequest(
            f"Feature: {spec.alias} has {min(widths)} values in one Example and {max(widths)} in another"
        )
    width = widths.pop()
    if width * len(values) * kind.itemsize > _MAX_COPIED_BYTES:
        raise InvalidRequest(
            f"Feature: {spec.alias} of {len(values)} Examples takes more than {_MAX_COPIED_BYTES} bytes"
        )
    shape = (len(values), *_row_shape(spec, width))
    flat = [value for row in values for value in row]
    array = _objects(flat) if field == "bytes_list" else np.array(flat).astype(kind.dtype)
    return array.reshape(shape)


def _values(feature: example_pb2.Feature | None, spec: InputSpec, field: str) -> Sequence[float | int | bytes]:
    if feature is None:
        wanted = name_of(spec.dtype)
        raise InvalidRequest(f"Feature: {spec.alias} (data type: {wanted}) is required but could not be found.")
    if feature.WhichOneof("kind") not in {field, None}:
        expected = field.removesuffix("_list")
        found = str(feature.WhichOneof("kind")).removesuffix("_list")
        raise InvalidRequest(f"Feature: {spec.alias} holds {found} values, the signature takes {expected} values")
    values: Sequence[float | int | bytes] = getattr(feature, field).value
    return values


def _row_shape(spec: InputSpec, width: int) -> tuple[int, ...]:
    """The shape of one row that holds `width` values; at most one dimension besides the first may be dynamic."""
    shape = (-1, *((-1,) if width != 1 else ())) if spec.shape is None else spec.shape
    inner = shape[1:]
    known = 1
    for size in inner:
        known *= size if size != -1 else 1
    dynamic = inner.count(-1)
    if not shape or dynamic > 1 or (width != known if dynamic == 0 else known == 0 or width % known):
        raise InvalidRequest(f"Feature: {spec.alias} has {width} values, which do not fit a row of {list(shape)}")
    return tuple(width // known if size == -1 else size for size in inner)


def _objects(values: Sequence[object]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
