"""Arrays to a PredictResponse's bytes; and the client's side of both: requests out, responses in."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from protos.serving import model_pb2, predict_pb2
from server.errors import MalformedResponse, MalformedTensor
from server.wire.encoding import Parts, length_delimited, map_entry
from server.wire.requests import ModelSpec, parse_entry, spec_from_proto
from server.wire.scanner import WireError, fields
from server.wire.tensors import RawTensor

_OUTPUTS, _MODEL_SPEC = 0x0A, 0x12  # tags of PredictResponse's fields: field number << 3 | wire type


def encode_predict_response(
    outputs: Iterable[tuple[str, NDArray[Any]]],
    *,
    name: str,
    version: int,
    signature_name: str,
    as_content: bool = False,
) -> bytes:
    """Code a `tensorflow.serving.PredictResponse`, values in the fields that TensorFlow Serving would use.

    Args:
        outputs: Alias and array of each output; `server.wire.encoding.tensor_parts` tells what arrays may be.
        name: The model that answered.
        version: Its version.
        signature_name: The signature that was run, never "".
        as_content: As TensorFlow Serving with `--enable_serialization_as_tensor_content`.

    Raises:
        TypeError: No tensor can hold elements of an array's dtype.
    """
    parts: Parts = []
    for alias, array in outputs:
        parts += map_entry(1, alias, array, as_content=as_content)
    parts.append(_answerer(name, version, signature_name))
    return b"".join(parts)


def encode_predict_request(
    inputs: Mapping[str, NDArray[Any]],
    *,
    name: str,
    version: int | None = None,
    label: str | None = None,
    signature_name: str = "",
    output_filter: Sequence[str] = (),
) -> bytes:
    """Code a `tensorflow.serving.PredictRequest`.

    Args:
        inputs: The tensors by alias.
        name: The model to ask.
        version: Its version by number; or
        label: its version by label. With neither, the newest one answers.
        signature_name: "" stands for "serving_default".
        output_filter: Aliases of the outputs wanted; none means all.

    Raises:
        TypeError: No tensor can hold elements of an array's dtype.
        ValueError: Both a version and a label are given.
    """
    if version is not None and label is not None:
        raise ValueError("a request names a version by number or by label, not both")
    parts: Parts = [length_delimited(1, _encode_model_spec(ModelSpec(name, version, label, signature_name)))]
    for alias, array in inputs.items():
        parts += map_entry(2, alias, array)
    parts += [length_delimited(3, alias.encode()) for alias in output_filter]
    return b"".join(parts)


def parse_predict_response(data: bytes) -> tuple[ModelSpec, dict[str, NDArray[Any]]]:
    """Parse the bytes of a `tensorflow.serving.PredictResponse`.

    Returns:
        What answered, and its outputs by alias, in the dtypes of `server.wire.dtypes.SERVED`.

    Raises:
        MalformedResponse: The bytes are no PredictResponse, or a tensor in it does not hold what it claims.
    """
    try:
        return _parse(data)
    except (WireError, DecodeError, MalformedTensor) as error:
        raise MalformedResponse(str(error)) from error
    except UnicodeDecodeError as error:
        raise MalformedResponse("it has a name that is not UTF-8") from error


def _parse(data: bytes) -> tuple[ModelSpec, dict[str, NDArray[Any]]]:
    rest = bytearray()
    tensors: dict[str, RawTensor] = {}
    for tag, start, stop in fields(data, 0, len(data)):
        if tag == _OUTPUTS:
            tensor = parse_entry(data, start, stop)
            if tensor.alias in tensors:
                tensors[tensor.alias].check_values()
            tensors[tensor.alias] = tensor
        elif tag == _MODEL_SPEC:
            rest += length_delimited(2, data[start:stop])
    spec = spec_from_proto(predict_pb2.PredictResponse.FromString(bytes(rest)).model_spec)
    return spec, {alias: tensor.to_numpy() for alias, tensor in tensors.items()}


@lru_cache(maxsize=256)
def _answerer(name: str, version: int, signature_name: str) -> bytes:
    """The field model_spec of a response."""
    return length_delimited(2, _encode_model_spec(ModelSpec(name, version, None, signature_name)))


def _encode_model_spec(spec: ModelSpec) -> bytes:
    message = model_pb2.ModelSpec(name=spec.name, signature_name=spec.signature_name)
    if spec.version is not None:
        message.version.value = spec.version
    elif spec.label is not None:
        message.version_label = spec.label
    return message.SerializeToString()
