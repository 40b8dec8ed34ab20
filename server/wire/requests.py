"""A PredictRequest's bytes to what it asks for, without building protobuf objects for its payload."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos.serving import model_pb2, predict_pb2
from protos.tensorflow import tensor_pb2
from server.errors import MalformedRequest
from server.wire.scanner import MAX_DEPTH, WireError, fields
from server.wire.tensors import RawTensor, raw_from_proto, scan_tensor

# Tags of PredictRequest's fields: field number << 3 | wire type.
_MODEL_SPEC, _INPUTS, _OUTPUT_FILTER, _STREAMED_OPTIONS, _REQUEST_OPTIONS = 0x0A, 0x12, 0x1A, 0x2A, 0x3A
# Those of a map entry.
_KEY, _VALUE = 0x0A, 0x12

_MAX_OPTION_BYTES = 1 << 16  # they are checked by building protobuf objects, so their size is bounded


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model, version and signature a request names.

    Attributes:
        name: The model's name; "" if the request names none.
        version: The version asked for by number, or None.
        label: The version asked for by label, or None. At most one of the two is set.
        signature_name: "" stands for "serving_default".
    """

    name: str
    version: int | None = None
    label: str | None = None
    signature_name: str = ""


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """What a client asks of Predict.

    Attributes:
        model_spec: None if the request has none.
        inputs: The tensors by alias, in the order in which their aliases first came.
        output_filter: Aliases of the outputs to answer with, as sent; none means all.
    """

    model_spec: ModelSpec | None
    inputs: dict[str, RawTensor]
    output_filter: tuple[str, ...]


def parse_predict_request(data: bytes) -> PredictRequest:
    """Parse the bytes of a `tensorflow.serving.PredictRequest`.

    Tensors are found but not looked into: that is for `RawTensor.to_numpy`, once they are known to be wanted.

    Raises:
        MalformedRequest: The bytes are no PredictRequest.
        MalformedTensor: An input holds what no request may hold, whatever the model.
    """
    specs: list[bytes] = []
    inputs: dict[str, RawTensor] = {}
    output_filter: list[str] = []
    try:
        for tag, start, stop in fields(data, 0, len(data)):
            if tag == _INPUTS:
                tensor = _input(data, start, stop)
                if tensor.alias in inputs:
                    inputs[tensor.alias].check_values()  # the last one wins, but protobuf minds the others too
                inputs[tensor.alias] = tensor
            elif tag == _MODEL_SPEC:
                specs.append(data[start:stop])
            elif tag == _OUTPUT_FILTER:
                output_filter.append(data[start:stop].decode())
            elif tag in (_STREAMED_OPTIONS, _REQUEST_OPTIONS):
                _check_options(tag, data[start:stop])
        return PredictRequest(_model_spec(specs) if specs else None, inputs, tuple(output_filter))
    except (WireError, DecodeError) as error:
        raise MalformedRequest(str(error)) from error
    except UnicodeDecodeError as error:
        raise MalformedRequest("it has a name that is not UTF-8") from error


def peek_model_name(data: bytes) -> str:
    """The name in a PredictRequest's first ModelSpec, found without a look at the inputs; "" if there is none."""
    try:
        for tag, start, stop in fields(data, 0, len(data)):
            if tag == _MODEL_SPEC:
                return model_pb2.ModelSpec.FromString(data[start:stop]).name
    except (WireError, DecodeError):
        pass
    return ""


def _input(data: bytes, start: int, stop: int) -> RawTensor:
    """Parse one entry of the map of inputs. A missing key or value is the empty one, as for protobuf."""
    alias = ""
    values: list[tuple[int, int]] = []
    for tag, begin, end in fields(data, start, stop, MAX_DEPTH - 1):
        if tag == _KEY:
            alias = data[begin:end].decode()
        elif tag == _VALUE:
            values.append((begin, end))
    if len(values) == 1:
        return scan_tensor(alias, data, *values[0], MAX_DEPTH - 2)
    merged = tensor_pb2.TensorProto()
    for begin, end in values:
        scan_tensor(alias, data, begin, end, MAX_DEPTH - 2)  # for what it refuses
        merged.MergeFromString(data[begin:end])
    return raw_from_proto(alias, merged)


def _model_spec(specs: list[bytes]) -> ModelSpec:
    merged = model_pb2.ModelSpec()
    for spec in specs:
        merged.MergeFromString(spec)
    return spec_from_proto(merged)


def spec_from_proto(message: model_pb2.ModelSpec) -> ModelSpec:
    """See a ModelSpec that protobuf has parsed as ours."""
    choice = message.WhichOneof("version_choice")
    return ModelSpec(
        message.name,
        message.version.value if choice == "version" else None,
        message.version_label if choice == "version_label" else None,
        message.signature_name,
    )


def _check_options(tag: int, options: bytes) -> None:
    """Refuse options that protobuf would refuse; nothing else is done with them."""
    if len(options) > _MAX_OPTION_BYTES:
        raise WireError(f"its options take more than {_MAX_OPTION_BYTES} bytes")
    if tag == _STREAMED_OPTIONS:
        predict_pb2.PredictStreamedOptions.FromString(options)
    else:
        predict_pb2.PredictRequest.RequestOptions.FromString(options)
