"""Good input for the fuzz targets, to start from."""

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from protos.serving import inference_pb2
from server.arrays import save_arrays
from server.wire.dtypes import SERVED
from server.wire.encoding import length_delimited
from server.wire.responses import encode_predict_request, encode_predict_response
from tests.bad_requests import good_requests
from tests.fuzz.targets import BUILT


def _message_seeds() -> list[bytes]:
    good = [request.data for request in good_requests() if not request.path.endswith("/Predict")]
    return [*good, *map(_nested, good)]


def _nested(data: bytes) -> bytes:
    """A message with two like it in fields that may be cut."""
    return data + b"".join(length_delimited(number, data) for number in (2, 1, 2))


def _text_seeds() -> list[bytes]:
    return [
        (
            b"max_batch_size { value: 8 } batch_timeout_micros { value: 5000 } allowed_batch_sizes: [2, 4, 8]"
            b" num_batch_threads { value: 2 } max_enqueued_batches { value: 100 } pad_variable_length_inputs: true"
        ),
        b"enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 } # no more",
        b'prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }',
        b"server_key: 'k' 'ey'\nserver_cert: \"c\\n\"; custom_ca: 'ca' client_verify: true",
    ]


def _array_seeds() -> list[bytes]:
    numbers, strings = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([b"oak", b""], object)
    members = [io.BytesIO(), io.BytesIO()]
    np.lib.format.write_array(members[0], numbers, version=(1, 0))
    np.lib.format.write_array(members[1], np.array(["oak", "elm"]), version=(2, 0))
    with tempfile.NamedTemporaryFile() as file:
        save_arrays(Path(file.name), {"x": numbers, "s": strings, "b": numbers.astype(ml_dtypes.bfloat16)})
        return [file.read(), *(member.getvalue() for member in members)]


_SEEDS: Mapping[str, Callable[[], list[bytes]]] = {
    "messages": _message_seeds,
    "texts": _text_seeds,
    "arrays": _array_seeds,
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
            BUILT + bytes([0x18, 130, 0x39, 128, 0x39, 129, 0x62, 3, 0, 1, 0x18, 5]),
        ]
    if name in _SEEDS:
        return _SEEDS[name]()
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
