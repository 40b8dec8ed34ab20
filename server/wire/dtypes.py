"""TensorFlow's element types: numbers, names, numpy dtypes, and where a TensorProto keeps their values.

One table, `SERVED`, holds the types that Segue serves; `name_of` knows the names of all others too, for error
texts. Numbers and value fields are those of protos/tensorflow/tensor.proto. Nothing here reads bytes.
"""

from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from protos.tensorflow import tensor_pb2

REFERENCE = 100
"""What TensorFlow adds to a type's number for a reference to it."""

Encoding = Literal["fixed", "varint", "bytes"]


@dataclass(frozen=True, slots=True)
class ElementType:
    """One element type that tensors on the wire may have.

    Attributes:
        number: Its value in the DataType enum.
        name: TensorFlow's name for it in error texts, such as "float" or "int32".
        dtype: The numpy dtype, little-endian; object, holding bytes, for strings.
        bits: What an entry of the value field is cut down to before it is seen as `dtype`: uint16 for the two
            16-bit floats, whose bit patterns travel as integers, else `dtype` itself.
        field: The TensorProto field that holds values of this type.
        field_number: That field's number.
        encoding: How that field is laid out: packed raw little-endian values, packed varints, or one
            length-delimited entry per element.
        parts: Entries of the field per element: 2 for complex numbers, else 1.
    """

    number: int
    name: str
    dtype: np.dtype[Any]
    bits: np.dtype[Any]
    field: str
    field_number: int
    encoding: Encoding
    parts: int = 1

    @property
    def itemsize(self) -> int:
        """Bytes that one element takes in a numpy array; for strings, those of the reference to it."""
        return self.dtype.itemsize


def _type(
    name: str,
    dtype: npt.DTypeLike,
    field: str,
    encoding: Encoding,
    *,
    bits: npt.DTypeLike | None = None,
    parts: int = 1,
) -> ElementType:
    return ElementType(
        number=tensor_pb2.DataType.Value(f"DT_{name.upper()}"),
        name=name,
        dtype=np.dtype(dtype),
        bits=np.dtype(bits or dtype),
        field=field,
        field_number=tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[field].number,
        encoding=encoding,
        parts=parts,
    )


SERVED: dict[int, ElementType] = {
    each.number: each
    for each in (
        _type("float", "<f4", "float_val", "fixed"),
        _type("double", "<f8", "double_val", "fixed"),
        _type("int32", "<i4", "int_val", "varint"),
        _type("uint8", "u1", "int_val", "varint"),
        _type("int16", "<i2", "int_val", "varint"),
        _type("int8", "i1", "int_val", "varint"),
        _type("string", object, "string_val", "bytes"),
        _type("complex64", "<c8", "scomplex_val", "fixed", parts=2),
        _type("int64", "<i8", "int64_val", "varint"),
        _type("bool", "?", "bool_val", "varint"),
        _type("bfloat16", ml_dtypes.bfloat16, "half_val", "varint", bits="<u2"),
        _type("uint16", "<u2", "int_val", "varint"),
        _type("complex128", "<c16", "dcomplex_val", "fixed", parts=2),
        _type("half", "<f2", "half_val", "varint", bits="<u2"),
        _type("uint32", "<u4", "uint32_val", "varint"),
        _type("uint64", "<u8", "uint64_val", "varint"),
    )
}
"""The element types that Segue serves, by DataType number."""

STRING = SERVED[tensor_pb2.DT_STRING]
BOOL = SERVED[tensor_pb2.DT_BOOL]

_BY_DTYPE: dict[np.dtype[Any], ElementType] = {each.dtype: each for each in SERVED.values()}


def of_dtype(dtype: np.dtype[Any]) -> ElementType:
    """The element type that carries arrays of a numpy dtype, whatever their byte order.

    Any dtype of strings (object, `S`, `U`) is TensorFlow's string.

    Raises:
        TypeError: TensorFlow Serving has no such tensors, or Segue does not serve them.
    """
    found = _BY_DTYPE.get(dtype)
    if found is None and dtype.kind in "SU":
        return STRING
    if found is None and dtype.kind in "fciu":
        found = _BY_DTYPE.get(dtype.newbyteorder("<"))
    if found is None:
        raise TypeError(f"no tensor can hold elements of the numpy dtype {dtype}")
    return found


def name_of(number: int) -> str:
    """What TensorFlow calls a DataType number in its error texts, such as "float", "qint8" or "int32_ref".

    The names are the enum's in lower case without the prefix; the invalid type is in upper case
    (tensorflow: core/framework/types.cc, DataTypeString).
    """
    if number == tensor_pb2.DT_INVALID:
        return "INVALID"
    if number not in tensor_pb2.DataType.values():
        return f"unknown dtype enum ({number})"
    return tensor_pb2.DataType.Name(tensor_pb2.DataType.ValueType(number)).removeprefix("DT_").lower()
