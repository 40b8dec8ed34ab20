"""What is fuzzed: functions that take any bytes and raise AssertionError, or anything else, where a promise is broken.

The promise of each is the same: bytes mean what they mean to protobuf, or one named error comes out; nothing else ever.
"""

import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from protos.serving import inference_pb2, metadata_pb2, model_service_pb2, predict_pb2
from protos.tensorflow import example_pb2, tensor_pb2
from server import model_config
from server.arrays import load_arrays
from server.batching.parameters import read_parameters
from server.errors import InvalidRequest, MalformedRequest, MalformedResponse, SegueError
from server.examples import columns, rows_of
from server.monitoring import metrics_paths
from server.reload import ConfigFile
from server.services import statuses
from server.services.inference import _LISTS
from server.services.tls import TlsRefused, _read_ssl_config
from server.signatures import InputSpec
from server.wire import merging, requests
from server.wire.dtypes import SERVED
from server.wire.encoding import pack_varints, tensor_parts
from server.wire.layouts import Layouts
from server.wire.merging import Inner
from server.wire.requests import parse_predict_request, peek_model_name
from server.wire.responses import encode_predict_response, parse_predict_response
from server.wire.scanner import Allowance
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


BUILT = b"\xff"
"""No message begins with it: what follows tells how to build one."""


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
        message = inference_pb2.Input.FromString(data) if data[:1] != BUILT else _input_of(data[1:])
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


_PARSED: Mapping[type[Message], Inner] = {
    inference_pb2.ClassificationRequest: _LISTS,
    inference_pb2.MultiInferenceRequest: _LISTS,
    metadata_pb2.GetModelMetadataRequest: {},
    model_service_pb2.GetModelStatusRequest: {},
    model_service_pb2.ReloadConfigRequest: {},
}
"""Requests, and where large ones are cut."""


def messages(data: bytes) -> None:
    """Requests that protobuf parses, cut where large ones are: as if they were not cut."""
    for depth in (0, 1):
        peek_model_name(data, depth)
    whole = merging.PART_BYTES
    for kind, inner in _PARSED.items():
        try:
            theirs = kind.FromString(data)
        except DecodeError:
            theirs = None
        for size in (whole, 1, 1 + len(data) // 3):
            merging.PART_BYTES = size
            try:
                ours = statuses.parse(kind, data, inner, Allowance(len(data)))
            except MalformedRequest:
                assert theirs is None
            else:
                assert theirs is not None
                assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
            finally:
                merging.PART_BYTES = whole


_FILE = os.memfd_create("file")


def _file(data: bytes) -> Path:
    """A file that holds the bytes, in memory."""
    os.ftruncate(_FILE, 0)
    os.pwrite(_FILE, data, 0)
    return Path(f"/proc/self/fd/{_FILE}")


def texts(data: bytes) -> None:
    """The files that start scripts name: batching parameters, where the metrics are, certificates."""
    path = _file(data)
    with suppress(InvalidRequest):
        parameters = read_parameters(path)
        assert list(parameters.buckets) == sorted(set(parameters.buckets))
        assert parameters.buckets[-1] == parameters.max_batch_size
        assert 1 <= parameters.padded(1) <= parameters.max_batch_size
    with suppress(InvalidRequest):
        assert all(each.startswith("/") for each in metrics_paths(path))
    with suppress(TlsRefused):
        material = _read_ssl_config(path)
        assert material.key
        assert material.certificate


def arrays(data: bytes) -> None:
    """A file of arrays, as packages have them; what is no zip file is taken for the one member of such a file."""
    if not data.startswith(b"PK"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("x.npy", data)
        data = packed.getvalue()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of headers that Python 2 wrote
            found = load_arrays(_file(data), max_total_bytes=LIMIT)
    except ValueError:
        return
    for array in found.values():
        if array.dtype.kind == "O":
            assert all(isinstance(each, bytes) for each in array.flat)
        else:
            assert array.dtype == ml_dtypes.bfloat16 or array.dtype.kind in "biufc"
            assert array.nbytes <= LIMIT


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
    "messages": messages,
    "texts": texts,
    "arrays": arrays,
    "encoder": encoder,
}
