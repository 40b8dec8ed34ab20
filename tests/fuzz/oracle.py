"""What protobuf and TensorFlow's rules make of a PredictRequest, written without a line of the code under test.

Protobuf parses the message; a tensor's values are then taken, cut and repeated as TensorFlow's Tensor::FromProto does
(tensorflow: core/framework/tensor.cc), the plain way: one element after the other.
"""

import math
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from protos.serving import model_pb2, predict_pb2
from protos.tensorflow import tensor_pb2
from server.errors import InvalidRequest, MalformedRequest, MalformedTensor
from server.wire.requests import ModelSpec, PredictRequest
from server.wire.tensors import RawTensor

LIMIT = 1 << 20
"""Bytes per tensor: fuzzed requests claim all sorts of sizes."""

Value = tuple[str, tuple[int, ...], bytes | list[bytes]] | None
"""dtype, shape and values of a tensor; None if it is refused."""

# Field and numpy dtype of each element type, and of its bits where those travel as integers.
_TYPES: dict[int, tuple[str, str]] = {
    tensor_pb2.DT_FLOAT: ("float_val", "f4"),
    tensor_pb2.DT_DOUBLE: ("double_val", "f8"),
    tensor_pb2.DT_INT32: ("int_val", "i4"),
    tensor_pb2.DT_UINT8: ("int_val", "u1"),
    tensor_pb2.DT_INT16: ("int_val", "i2"),
    tensor_pb2.DT_INT8: ("int_val", "i1"),
    tensor_pb2.DT_STRING: ("string_val", "O"),
    tensor_pb2.DT_COMPLEX64: ("scomplex_val", "c8"),
    tensor_pb2.DT_INT64: ("int64_val", "i8"),
    tensor_pb2.DT_BOOL: ("bool_val", "?"),
    tensor_pb2.DT_BFLOAT16: ("half_val", "bfloat16"),
    tensor_pb2.DT_UINT16: ("int_val", "u2"),
    tensor_pb2.DT_COMPLEX128: ("dcomplex_val", "c16"),
    tensor_pb2.DT_HALF: ("half_val", "f2"),
    tensor_pb2.DT_UINT32: ("uint32_val", "u4"),
    tensor_pb2.DT_UINT64: ("uint64_val", "u8"),
}
_INT64_MAX = 2**63 - 1


def expected_value(proto: tensor_pb2.TensorProto) -> Value:
    """What a tensor must come to."""
    if proto.dtype not in _TYPES or len(proto.tensor_shape.dim) > 64:
        return None
    field, name = _TYPES[proto.dtype]
    dtype = np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    if not _countable(shape, dtype.itemsize):
        return None
    count = math.prod(shape)
    if count * dtype.itemsize > LIMIT:
        return None
    if proto.tensor_content and (name == "O" or count):
        values = _from_content(proto.tensor_content, dtype, count)
    elif proto.tensor_content:
        values = b""
    else:
        values = _from_entries(list(getattr(proto, field)), dtype, count)
    if isinstance(values, bytes):
        values = _one_nan(values, dtype)
    return None if values is None else (str(dtype), shape, values)


def _countable(shape: tuple[int, ...], itemsize: int) -> bool:
    count = extent = 1
    for size in shape:
        count *= size
        extent *= size or 1
        if size < 0 or count > _INT64_MAX or extent * itemsize > _INT64_MAX:
            return False
    return True


def _from_content(content: bytes, dtype: np.dtype[Any], count: int) -> bytes | list[bytes] | None:
    if dtype.kind == "O":
        return _strings_of(content, count)
    if len(content) != count * dtype.itemsize or (dtype.kind == "b" and max(content) > 1):
        return None
    return content


def _strings_of(content: bytes, count: int) -> list[bytes] | None:
    """All lengths as varints of at most five bytes, of which 32 bits count, then all strings."""
    if not count:
        return []
    lengths = []
    position = 0
    for _ in range(count):
        value = 0
        for index in range(6):
            if position >= len(content) or index == 5:
                return None
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                break
        lengths.append(value % 2**32)
    if position + sum(lengths) != len(content):
        return None
    ends = np.cumsum([position, *lengths]).tolist()
    return [content[start:end] for start, end in pairwise(ends)]


def _from_entries(entries: list[Any], dtype: np.dtype[Any], count: int) -> bytes | list[bytes]:
    if dtype.kind == "c":
        entries = [complex(*entries[k : k + 2]) for k in range(0, len(entries) // 2 * 2, 2)]
    if dtype.kind == "O":
        empty: Any = b""
    else:
        empty = 0
    last = entries[-1] if entries else empty
    wanted = entries[:count] + [last] * (count - len(entries))
    if dtype.kind == "O":
        return [bytes(each) for each in wanted]
    if dtype.kind in "iu" or dtype.itemsize == 2:  # cut to its lowest bytes
        return b"".join([(each % 256**dtype.itemsize).to_bytes(dtype.itemsize, "little") for each in wanted])
    return np.array(wanted, dtype).tobytes()


def actual_value(raw: RawTensor) -> Value:
    """What a tensor comes to."""
    try:
        nbytes = raw.nbytes
        if raw.form.nbytes > LIMIT:
            return None
        array = raw.to_numpy()
    except MalformedTensor:
        return None
    if array.dtype.kind == "O":
        strings: list[bytes] = array.ravel().tolist()
        assert nbytes >= array.nbytes + sum({id(each): len(each) for each in strings}.values())
        return (str(array.dtype), array.shape, strings)
    assert array.nbytes == nbytes
    return (str(array.dtype), array.shape, _one_nan(array.tobytes(), array.dtype))


def _one_nan(data: bytes, dtype: np.dtype[Any]) -> bytes:
    """Make all NaNs the same: a Python float does not keep their bits, and nobody minds."""
    if dtype.kind not in "fc" or dtype.itemsize == 2:
        return data
    values = np.frombuffer(data, dtype).copy().view("f8" if dtype in {np.dtype("f8"), np.dtype("c16")} else "f4")
    values[np.isnan(values)] = np.nan
    return values.tobytes()


def expected_spec(message: predict_pb2.PredictRequest | predict_pb2.PredictResponse) -> ModelSpec | None:
    """What the model spec must come to."""
    if not message.HasField("model_spec"):
        return None
    return _spec(message.model_spec)


def _spec(spec: model_pb2.ModelSpec) -> ModelSpec:
    version = spec.version.value if spec.HasField("version") else None
    label = spec.version_label if spec.HasField("version_label") else None
    return ModelSpec(spec.name, version, label, spec.signature_name)


def has_lost_an_entry(message: predict_pb2.PredictRequest | predict_pb2.PredictResponse, number: int) -> bool:
    """Whether an entry of the map has an unknown field: Python's protobuf then drops it, C++ in TensorFlow does not."""
    unknown_fields = UnknownFieldSet(message)
    return any(unknown_fields[index].field_number == number for index in range(len(unknown_fields)))


def check_request(data: bytes, parse: Any) -> PredictRequest | None:
    """Parse a request and compare with protobuf; AssertionError where they differ.

    Args:
        data: Any bytes.
        parse: The parser under test.

    Returns:
        What was parsed; None if it was refused.
    """
    try:
        theirs = predict_pb2.PredictRequest.FromString(data)
    except DecodeError:
        theirs = None
    try:
        ours: PredictRequest = parse(data)
    except MalformedRequest:
        assert theirs is None
        return None
    except InvalidRequest:  # resource handles, variants
        assert theirs is None or b"\x72" in data or b"\x7a" in data
        return None
    values = {alias: actual_value(raw) for alias, raw in ours.inputs.items()}
    if theirs is None:  # broken varints may go unnoticed until the tensor is read
        assert None in values.values()
        return ours
    if not has_lost_an_entry(theirs, 2):
        assert values == {alias: expected_value(proto) for alias, proto in theirs.inputs.items()}
    assert ours.output_filter == tuple(theirs.output_filter)
    assert ours.model_spec == expected_spec(theirs)
    return ours
