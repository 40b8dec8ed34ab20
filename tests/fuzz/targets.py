"""What is fuzzed: functions that take any bytes and raise AssertionError, or anything else, where a promise is broken.

The promise of each is the same: bytes mean what they mean to protobuf, or one named error comes out; nothing else ever.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from protos.serving import inference_pb2, predict_pb2
from protos.tensorflow import example_pb2, tensor_pb2
from server import model_config
from server.errors import InvalidRequest, MalformedResponse, SegueError
from server.examples import columns, rows_of
from server.reload import ConfigFile
from server.signatures import InputSpec
from server.wire import requests
from server.wire.dtypes import SERVED
from server.wire.encoding import pack_varints, tensor_parts
from server.wire.layouts import Layouts
from server.wire.requests import parse_predict_request
from server.wire.responses import encode_predict_request, encode_predict_response, parse_predict_response
from tests.bad_requests import good_requests
from tests.fuzz.oracle import LIMIT, check_request, expected_spec, expected_value, has_lost_an_entry

Target = Callable[[bytes], None]


def predict_request(data: bytes) -> None:
    """A PredictRequest, parsed anew, by the layout that it leaves, and with a bit changed while its layout is known."""
    requests._LAYOUTS = Layouts()
    if check_request(data, parse_predict_request) is None or not data:
        return
    check_request(data, parse_predict_request)
    place = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    for bit in (place, place >> 20, place >> 40):
        changed = bytearray(data)
        changed[bit // 8 % len(data)] ^= 1 << bit % 8
        check_request(bytes(changed), parse_predict_request)


def predict_response(data: bytes) -> None:
    """A PredictResponse, as our own client reads it."""
    try:
        theirs = predict_pb2.PredictResponse.FromString(data)
    except DecodeError:
        theirs = None
    if theirs is not None and not _is_modest(theirs):
        return
    try:
        spec, outputs = parse_predict_response(data)
    except MalformedResponse:
        if theirs is not None and not has_lost_an_entry(theirs, 1):
            odd = b"\x72" in data or b"\x7a" in data
            assert odd or None in [expected_value(each) for each in theirs.outputs.values()]
        return
    assert theirs is not None
    assert spec == (expected_spec(theirs) or requests.ModelSpec(""))
    if not has_lost_an_entry(theirs, 1):
        assert outputs.keys() == theirs.outputs.keys()
        for alias, array in outputs.items():
            expected = expected_value(theirs.outputs[alias])
            assert expected is not None
            assert expected[:2] == (str(array.dtype), array.shape)


def _is_modest(message: predict_pb2.PredictResponse) -> bool:
    """Whether no output claims more than is quickly made."""
    sizes = [[dim.size for dim in each.tensor_shape.dim] for each in message.outputs.values()]
    return all(np.prod([max(size, 0) for size in shape], dtype=float) < LIMIT / 16 for shape in sizes)


_SPECS = tuple(
    InputSpec(alias, f"{alias}:0", dtype, shape, alias, default)
    for alias, dtype, shape, default in (
        ("age", tensor_pb2.DT_FLOAT, (-1, 1), None),
        ("size", tensor_pb2.DT_INT64, (-1, 2), None),
        ("kind", tensor_pb2.DT_STRING, (-1, -1), None),
        ("flag", tensor_pb2.DT_BOOL, None, np.zeros((1, 1), np.bool_)),
        ("half", tensor_pb2.DT_BFLOAT16, (-1, -1, 2), np.zeros((1, 1, 2), ml_dtypes.bfloat16)),
        ("byte", tensor_pb2.DT_UINT8, (-1,), np.zeros(1, np.uint8)),
    )
)
_SERIALIZED = (InputSpec("inputs", "inputs:0", tensor_pb2.DT_STRING, (-1,), "inputs", None),)


_BUILT = b"\xff"  # no message begins with it: what follows tells how to build one


def _input_of(recipe: bytes) -> inference_pb2.Input:
    """Examples by a recipe, for protobuf's parser gives a fuzzer nothing to go by: two bytes for each step."""
    message = inference_pb2.Input()
    listed, shared = message.example_list, message.example_list_with_context
    example = listed.examples.add()
    for step, value in zip(recipe[::2], recipe[1::2], strict=False):
        feature = example.features.feature[_SPECS[step % len(_SPECS)].alias]
        match step >> 3:
            case 0:
                example = (shared if value & 1 else listed).examples.add()
            case 1:
                example = shared.context
            case 2:
                feature.Clear()
            case 3 | 4 | 5 | 6:
                feature.float_list.value.extend([(value - 128) * 1e37] * (1 + value % 3))
            case 7 | 8 | 9 | 10:
                feature.int64_list.value.extend([(value - 128) << 56] * (1 + value % 3))
            case _:
                feature.bytes_list.value.extend([bytes((value,)) * step] * (1 + value % 3))
    return message


def examples(data: bytes) -> None:
    """The Input of Classify and Regress: rows become columns of as many rows, of the dtypes that were asked for."""
    try:
        message = inference_pb2.Input.FromString(data) if data[:1] != _BUILT else _input_of(data[1:])
    except DecodeError:
        return
    for specs in (_SPECS, _SERIALIZED, *[(spec,) for spec in _SPECS]):
        try:
            rows = rows_of(message)
            found = columns(rows, specs)
        except InvalidRequest:
            continue
        for spec in specs:
            if spec.alias in found:
                array = found[spec.alias]
                assert array.shape[:1] == (len(rows),)
                assert array.dtype == SERVED[spec.dtype].dtype
                assert spec.shape is None or array.ndim == len(spec.shape)
            else:
                assert spec.default is not None
        if specs is _SERIALIZED:
            for row in found["inputs"].tolist():
                example_pb2.Example.FromString(row)


class _Text(ConfigFile):
    """A configuration file that lies in memory."""

    def __init__(self) -> None:
        """Nothing is read from a path."""
        self.path = "models.config"  # type: ignore[assignment]  # it is only named in errors


def config(data: bytes) -> None:
    """A model_config_file, and what follows from it."""
    try:
        parsed = _Text().parse(data)
        models = model_config.configured_models(parsed, {"known"})
    except SegueError:
        return
    assert models.folders.keys() == models.policies.keys()
    assert all(path.is_absolute() for path in models.folders.values())
    list(model_config.ignored(parsed))


def encoder(data: bytes) -> None:
    """Arrays out: protobuf reads back what went in, and so do we."""
    if len(data) < 2:
        return
    kinds = list(SERVED.values())
    kind = kinds[data[0] % len(kinds)]
    as_content = bool(data[1] & 1)
    array = _array(data[2:], kind.dtype, data[1])
    proto = tensor_pb2.TensorProto.FromString(b"".join(tensor_parts(array, as_content=as_content)))
    raw = array.ravel().tolist() if kind.dtype.kind == "O" else np.ascontiguousarray(array, kind.dtype).tobytes()
    found = expected_value(proto)
    assert found is not None
    assert found[:2] == (str(kind.dtype), array.shape)
    if kind.dtype.kind not in "fcV" or kind.encoding == "varint":
        assert found[2] == raw
    encoded = encode_predict_response(
        [("y", array), ("é", array)], name="m", version=7, signature_name="s", as_content=as_content
    )
    _, outputs = parse_predict_response(encoded)
    for each in outputs.values():
        assert (each.dtype, each.shape) == (kind.dtype, array.shape)
        assert (each.ravel().tolist() if kind.dtype.kind == "O" else each.tobytes()) == raw
    if array.dtype.kind in "iu" and array.size:
        flat = np.ascontiguousarray(array).ravel()
        packed = tensor_pb2.TensorProto()
        packed.int64_val.extend([(each + 2**63) % 2**64 - 2**63 for each in flat.tolist()])
        assert packed.SerializeToString().endswith(pack_varints(flat))


def _array(data: bytes, dtype: np.dtype[Any], layout: int) -> NDArray[Any]:
    """An array of the bytes, in one of several shapes, orders and layouts."""
    if dtype.kind == "O":
        values: NDArray[Any] = np.empty(len(data.split(b"\0")), object)
        values[:] = data.split(b"\0")
    elif dtype.kind == "b":
        values = np.frombuffer(data, np.uint8) % 2 == 1
    else:
        values = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
    if layout & 2 and dtype.kind in "iufc" and dtype.itemsize > 1:
        values = values.astype(dtype.newbyteorder(">"))
    if layout & 4 and values.size % 2 == 0:
        values = values.reshape(-1, 2).T if layout & 8 else values.reshape(2, -1, 1)
    if layout & 16:
        values = values[::-1]
    if layout & 32:
        values = values[:1].reshape(()) if values.ndim == 1 and values.size else values
    return values


TARGETS: Mapping[str, Target] = {
    "predict_request": predict_request,
    "predict_response": predict_response,
    "examples": examples,
    "config": config,
    "encoder": encoder,
}


def seeds(name: str) -> list[bytes]:
    """Good input for a target, to start from."""
    rng = np.random.default_rng(1)
    arrays: dict[str, NDArray[Any]] = {
        each.name: np.array([b"oak", b"", b"\xff"], object)
        if each.name == "string"
        else (rng.random((2, 3)) * 200).astype(each.dtype)
        for each in SERVED.values()
    }
    if name == "predict_request":
        good = [request.data for request in good_requests() if request.path.endswith("/Predict")]
        return [*good, *[encode_predict_request({"x": array}, name="m", version=3) for array in arrays.values()]]
    if name == "predict_response":
        return [
            encode_predict_response([("y", array)], name="m", version=3, signature_name="s", as_content=content)
            for array in arrays.values()
            for content in (False, True)
        ]
    if name == "examples":
        rows = inference_pb2.ClassificationRequest.FromString(
            next(request.data for request in good_requests() if request.path.endswith("/Classify"))
        ).input
        shared = inference_pb2.Input()
        shared.example_list_with_context.examples.extend(rows.example_list.examples)
        shared.example_list_with_context.context.features.feature["flag"].int64_list.value.append(1)
        return [
            rows.SerializeToString(),
            shared.SerializeToString(),
            _BUILT + bytes([0x18, 130, 0x39, 128, 0x39, 129, 0x62, 3, 0, 1, 0x18, 5]),
        ]
    if name == "config":
        return [
            b"model_config_list { config { name: 'm' base_path: '/models/m' model_platform: 'tensorflow' } }",
            (
                b"model_config_list: { config: [{ name: 'a', base_path: 'file:///a', model_type: TENSORFLOW,"
                b" model_version_policy { specific { versions: [1, 2] } } version_labels { key: 'new' value: 1 } }] }"
            ),
            b"custom_model_config { [type.googleapis.com/google.protobuf.Int64Value] { value: 1 } }  # no models",
        ]
    return [
        bytes((index, layout)) + array.tobytes() for index, array in enumerate(arrays.values()) for layout in (0, 7)
    ]
