"""Tensors by TensorFlow's rules: the same protos through TensorFlow's own kernel and through ours."""

import base64
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from protos.tensorflow import tensor_pb2
from server.errors import MalformedTensor
from server.wire.dtypes import SERVED
from server.wire.tensors import RawTensor, scan_tensor

CHILD = Path(__file__).with_name("reference_tensors.py")
Proto = tensor_pb2.TensorProto
Answer = tuple[tuple[int, ...], bytes | list[bytes]]

BIG = 2**40


def _proto(dtype: int, shape: list[int], *, unknown_rank: bool = False, **values: Any) -> Proto:
    dims = [tensor_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return Proto(
        dtype=tensor_pb2.DataType.Name(tensor_pb2.DataType.ValueType(dtype)),
        tensor_shape=tensor_pb2.TensorShapeProto(dim=dims, unknown_rank=unknown_rank),
        **values,
    )


def _table() -> dict[str, Proto]:
    """Cases with a name: each rule, at its edges."""
    pb = tensor_pb2
    return {
        "scalar": _proto(pb.DT_FLOAT, [], float_val=[3.5]),
        "scalar without a value": _proto(pb.DT_DOUBLE, []),
        "scalar string": _proto(pb.DT_STRING, [], string_val=[b"a"]),
        "no shape at all": Proto(dtype=pb.DT_FLOAT, float_val=[1]),
        "last value repeated": _proto(pb.DT_FLOAT, [2, 3], float_val=[1, 2]),
        "one value repeated": _proto(pb.DT_INT64, [5], int64_val=[-7]),
        "last string repeated": _proto(pb.DT_STRING, [3], string_val=[b"a", b"\xff\x00"]),
        "no values": _proto(pb.DT_INT32, [2, 2]),
        "no strings": _proto(pb.DT_STRING, [2]),
        "too many values": _proto(pb.DT_FLOAT, [2], float_val=[1, 2, 3]),
        "too many strings": _proto(pb.DT_STRING, [1], string_val=[b"a", b"b"]),
        "values of another field": _proto(pb.DT_FLOAT, [2], double_val=[3, 4]),
        "int64 in bool_val": _proto(pb.DT_INT64, [2], bool_val=[True, True]),
        "uint32 in int_val": _proto(pb.DT_UINT32, [2], int_val=[1, 2]),
        "half with dirty upper bits": _proto(pb.DT_HALF, [2], half_val=[0x3C00 + (7 << 16), -1]),
        "bfloat16 with dirty upper bits": _proto(pb.DT_BFLOAT16, [2], half_val=[0x3F80 + (7 << 16), 1]),
        "int8 cut": _proto(pb.DT_INT8, [4], int_val=[300, -1, 128, -129]),
        "uint8 cut": _proto(pb.DT_UINT8, [4], int_val=[300, -1, 128, 255]),
        "int16 cut": _proto(pb.DT_INT16, [3], int_val=[70000, -1, 32768]),
        "uint16 cut": _proto(pb.DT_UINT16, [3], int_val=[70000, -1, 65535]),
        "complex64": _proto(pb.DT_COMPLEX64, [2], scomplex_val=[1, 2, 3, 4]),
        "half a complex64": _proto(pb.DT_COMPLEX64, [2], scomplex_val=[1, 2, 3]),
        "complex128 repeated": _proto(pb.DT_COMPLEX128, [2], dcomplex_val=[1, 2]),
        "bools": _proto(pb.DT_BOOL, [3], bool_val=[True, False]),
        "unknown rank without dims": _proto(pb.DT_FLOAT, [], unknown_rank=True, float_val=[3]),
        "unknown rank with dims": _proto(pb.DT_FLOAT, [2], unknown_rank=True, float_val=[3]),
        "content": _proto(pb.DT_INT16, [2], tensor_content=b"\x01\x00\xff\xff"),
        "content too short": _proto(pb.DT_FLOAT, [2], tensor_content=b"\0" * 7),
        "content too long": _proto(pb.DT_FLOAT, [1], tensor_content=b"\0" * 8),
        "content beside values": _proto(pb.DT_FLOAT, [1], tensor_content=b"\0\0\x80\x3f", float_val=[9]),
        "content of an empty tensor": _proto(pb.DT_FLOAT, [0], tensor_content=b"abc"),
        "content of half": _proto(pb.DT_HALF, [1], tensor_content=b"\x00\x3c"),
        "content of bfloat16": _proto(pb.DT_BFLOAT16, [1], tensor_content=b"\x80\x3f"),
        "content of complex64": _proto(pb.DT_COMPLEX64, [1], tensor_content=b"\0\0\x80\x3f" * 2),
        "content of bools": _proto(pb.DT_BOOL, [2], tensor_content=b"\x01\x00"),
        "content of odd bools": _proto(pb.DT_BOOL, [2], tensor_content=b"\x02\x00"),
        "strings in content": _proto(pb.DT_STRING, [2], tensor_content=b"\x01\x02abc"),
        "scalar string in content": _proto(pb.DT_STRING, [], tensor_content=b"\x03abc"),
        "empty strings in content": _proto(pb.DT_STRING, [2], tensor_content=b"\0\0"),
        "strings in content, a byte more": _proto(pb.DT_STRING, [2], tensor_content=b"\x01\x02abcd"),
        "strings in content, a byte less": _proto(pb.DT_STRING, [2], tensor_content=b"\x01\x02ab"),
        "strings in content, lengths missing": _proto(pb.DT_STRING, [3], tensor_content=b"\x01\x02"),
        "string length in five bytes": _proto(pb.DT_STRING, [1], tensor_content=b"\x82\x80\x80\x80\x00ab"),
        "string length of 35 bits": _proto(pb.DT_STRING, [1], tensor_content=b"\x82\x80\x80\x80\x70ab"),
        "string length in six bytes": _proto(pb.DT_STRING, [1], tensor_content=b"\x82\x80\x80\x80\x80\x00ab"),
        "string length cut off": _proto(pb.DT_STRING, [1], tensor_content=b"\x82"),
        "empty": _proto(pb.DT_INT64, [3, 0, 2]),
        "empty with values": _proto(pb.DT_FLOAT, [0], float_val=[1, 2]),
        "negative size": _proto(pb.DT_FLOAT, [-1], float_val=[1]),
        "two negative sizes": _proto(pb.DT_FLOAT, [-1, -1], float_val=[1]),
        "overflow": _proto(pb.DT_FLOAT, [BIG, BIG]),
        "overflow before a zero": _proto(pb.DT_FLOAT, [BIG, BIG, 0]),
        "rank 64": _proto(pb.DT_FLOAT, [1] * 64, float_val=[1]),
        "rank 255": _proto(pb.DT_FLOAT, [1] * 255, float_val=[1]),
    }


def _random_protos(count: int) -> Iterator[Proto]:
    """Tensors of every served type and many sizes, with values in the typed field or `tensor_content`."""
    chance = random.Random(20260101)  # noqa: S311 - test data, no secret
    for index in range(count):
        kind = list(SERVED.values())[index % len(SERVED)]
        shape = [chance.randrange(4) for _ in range(chance.randrange(4))]
        proto = _proto(kind.number, shape)
        entries = chance.randrange(12) * kind.parts
        if kind.name == "string":
            proto.string_val.extend(chance.randbytes(chance.randrange(200)) for _ in range(entries))
        elif kind.encoding == "fixed":
            getattr(proto, kind.field).extend(chance.uniform(-1e3, 1e3) for _ in range(entries))
        elif kind.name == "bool":
            proto.bool_val.extend(chance.random() < 0.5 for _ in range(entries))
        else:
            bits = 64 if "64" in kind.field else 32
            low = 0 if kind.field.startswith("uint") else -(2 ** (bits - 1))
            width = chance.choice((7, 14, 31, bits - (low < 0)))
            getattr(proto, kind.field).extend(
                max(low, chance.randrange(-(2**width) if low else 0, 2**width)) for _ in range(entries)
            )
        if kind.name not in ("string", "bool") and chance.random() < 0.3:
            proto.tensor_content = chance.randbytes(int(np.prod(shape)) * kind.itemsize)
        yield proto


@pytest.fixture(scope="module")
def cases() -> dict[str, Proto]:
    """All cases by name."""
    return {**_table(), **{f"random {index}": proto for index, proto in enumerate(_random_protos(480))}}


@pytest.fixture(scope="module")
def theirs(cases: dict[str, Proto], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer | None]:
    """What TensorFlow makes of each case; None where it refuses."""
    folder = tmp_path_factory.mktemp("reference")
    source, target = folder / "in.json", folder / "out.json"
    source.write_text(json.dumps([(p.dtype, base64.b64encode(p.SerializeToString()).decode()) for p in cases.values()]))
    subprocess.run(
        [sys.executable, str(CHILD), str(source), str(target)],
        check=True,
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        timeout=120,
    )
    answers: dict[str, Answer | None] = {}
    for name, answer in zip(cases, json.loads(target.read_text()), strict=True):
        if answer is None:
            answers[name] = None
        else:
            shape, values = answer
            decoded = [*map(base64.b64decode, values)] if isinstance(values, list) else base64.b64decode(values)
            answers[name] = (tuple(shape), decoded)
    return answers


def _answer(raw: RawTensor) -> Answer | None:
    try:
        array: NDArray[Any] = raw.to_numpy()
    except MalformedTensor:
        return None
    assert array.dtype == SERVED[raw.dtype].dtype
    return array.shape, array.ravel().tolist() if array.dtype == object else array.tobytes()


def _scanned(proto: Proto) -> RawTensor:
    data = b"before" + proto.SerializeToString() + b"behind"
    return scan_tensor("x", data, 6, len(data) - 6)


def _scanned_with_more(proto: Proto) -> RawTensor:
    """With a field from the future in front, which keeps it from being taken for a plain one."""
    data = b"\xf8\x06\x01" + proto.SerializeToString()
    return scan_tensor("x", data, 0, len(data))


@pytest.mark.parametrize("read", [_scanned, _scanned_with_more])
def test_values_are_tensorflow_s(
    cases: dict[str, Proto], theirs: dict[str, Answer | None], read: Callable[[Proto], RawTensor]
) -> None:
    """Each tensor gives the array that TensorFlow's kernel gives, bit for bit, or is refused by both."""
    for name, proto in cases.items():
        assert _answer(read(proto)) == theirs[name], name
    assert None in theirs.values()
