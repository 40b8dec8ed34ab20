"""The table of element types."""

import ml_dtypes
import numpy as np
import pytest

from protos.tensorflow import tensor_pb2
from server.wire.dtypes import REFERENCE, SERVED, STRING, name_of, of_dtype


def test_every_served_type_round_trips() -> None:
    """From number to numpy dtype and back is the same type, and no two share a dtype."""
    for number, kind in SERVED.items():
        assert kind.number == number
        assert of_dtype(kind.dtype) is kind
        assert kind.bits.itemsize == kind.dtype.itemsize
    assert len({kind.dtype for kind in SERVED.values()}) == len(SERVED) == 16


def test_fields_are_those_of_the_contract() -> None:
    """A type's field number belongs to the field of its name, which TensorProto has."""
    for kind in SERVED.values():
        field = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[kind.field]
        assert field.number == kind.field_number
        assert field.is_repeated


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.dtype(">f4"), "float"),
        (np.dtype(">u2"), "uint16"),
        (np.dtype("S5"), "string"),
        (np.dtype("U5"), "string"),
        (np.dtype(object), "string"),
        (np.dtype(ml_dtypes.bfloat16), "bfloat16"),
        (np.dtype(np.longlong), "int64"),
        (np.dtype("?"), "bool"),
    ],
)
def test_numpy_dtypes_find_their_type(dtype: np.dtype[np.generic], name: str) -> None:
    """Byte order and the width of numpy's own strings do not matter."""
    assert of_dtype(dtype).name == name


@pytest.mark.parametrize("dtype", ["datetime64[s]", "V4", "g", ml_dtypes.int4, ml_dtypes.float8_e5m2])
def test_other_dtypes_are_refused(dtype: str) -> None:
    """A dtype that no tensor can hold is named in the error."""
    with pytest.raises(TypeError, match="no tensor can hold"):
        of_dtype(np.dtype(dtype))


def test_names_are_tensorflow_s() -> None:
    """Error texts name types as TensorFlow does, whatever number a client sends."""
    names = {
        tensor_pb2.DT_FLOAT: "float",
        tensor_pb2.DT_INT32: "int32",
        tensor_pb2.DT_HALF: "half",
        tensor_pb2.DT_QUINT8: "quint8",
        tensor_pb2.DT_RESOURCE: "resource",
        tensor_pb2.DT_FLOAT8_E4M3FN: "float8_e4m3fn",
        tensor_pb2.DT_INVALID: "INVALID",
        tensor_pb2.DT_FLOAT + REFERENCE: "float_ref",
        77: "unknown dtype enum (77)",
        -1: "unknown dtype enum (-1)",
    }
    assert {number: name_of(number) for number in names} == names
    assert all(name_of(kind.number) == kind.name for kind in SERVED.values())
    assert STRING.name == "string"
