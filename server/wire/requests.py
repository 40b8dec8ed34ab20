"""A PredictRequest's bytes to what it asks for, without building protobuf objects for its payload.

Clients send requests that differ only in their numbers. So the layout of a request is kept, all of its bytes but the
numbers among them, and a request whose other bytes are the same is not parsed again: see `server.wire.layouts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from google.protobuf.message import DecodeError

from protos.serving import model_pb2, predict_pb2
from server.errors import MalformedRequest
from server.wire.encoding import length_delimited
from server.wire.layouts import Layouts, layout_of
from server.wire.scanner import MAX_DEPTH, Allowance, WireError, fields, long_size
from server.wire.tensors import RawTensor, scan_tensor
from server.wire.values import slices

# Tags of PredictRequest's fields: field number << 3 | wire type.
_MODEL_SPEC, _INPUTS, _OUTPUT_FILTER, _STREAMED_OPTIONS, _REQUEST_OPTIONS = 0x0A, 0x12, 0x1A, 0x2A, 0x3A
# Those of a map entry.
_KEY, _VALUE = 0x0A, 0x12

MAX_INPUTS = 4096
"""Tensors in a request, and names in its output_filter that are kept: no signature has as many."""

_NO_GROUPS = 0  # levels: a group is passed over field by field, however many it has
_PEEKED = 64  # fields that are looked at for a name, whatever else a request holds
_MAX_OPTION_BYTES = 1 << 16  # they are checked by building protobuf objects, so their size is bounded
_MAX_SPEC_BYTES = _MAX_NAME_BYTES = 1 << 16  # texts that name what is not there end after 1 KiB


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


class PredictRequest(NamedTuple):
    """What a client asks of Predict.

    Attributes:
        model_spec: None if the request has none.
        inputs: The tensors by alias, in the order in which their aliases first came.
        output_filter: Aliases of the outputs to answer with, as sent; none means all. Of more than MAX_INPUTS only so
            many are kept, among which some signature's rule is broken already.
    """

    model_spec: ModelSpec | None
    inputs: Mapping[str, RawTensor]
    output_filter: tuple[str, ...]


_LAYOUTS: Layouts[PredictRequest] = Layouts()


def parse_predict_request(data: bytes) -> PredictRequest:
    """Parse the bytes of a `tensorflow.serving.PredictRequest`.

    Tensors are found but not looked into: that is for `RawTensor.to_numpy`, once they are known to be wanted.

    Raises:
        MalformedRequest: The bytes are no PredictRequest, or it has more than MAX_INPUTS inputs or more fields than
            scanner.Allowance allows.
        MalformedTensor: An input holds what no request may hold, whatever the model.
    """
    known = _LAYOUTS.find(data)
    if known is not None:
        return PredictRequest(known.rest.model_spec, known.tensors(data), known.rest.output_filter)
    try:
        request = _parse(data)
    except (WireError, DecodeError) as error:
        raise MalformedRequest(str(error)) from error
    except UnicodeDecodeError as error:
        raise MalformedRequest("it has a name that is not UTF-8") from error
    layout = layout_of(data, request.inputs, request._replace(inputs={}))
    if layout is not None:
        _LAYOUTS.keep(data, layout)
    return request


def is_known_layout(data: bytes) -> bool:
    """Whether a request is like one that was parsed before, so that parsing it takes microseconds."""
    return _LAYOUTS.find(data) is not None


def peek_model_name(data: bytes, depth: int = 0) -> str:
    """The name in the ModelSpec that is a request's first field; "" if there is none. Looks at a few fields at most.

    Args:
        data: A PredictRequest, or another whose first field is its ModelSpec.
        depth: Messages that the ModelSpec is within, as their first fields: 1 for a MultiInferenceRequest.
    """
    start, stop = 0, len(data)
    try:
        for _ in range(depth + 1):
            found = next(
                ((b, e) for tag, b, e in islice(fields(data, start, stop, _NO_GROUPS), _PEEKED) if tag == _MODEL_SPEC),
                None,
            )
            if found is None:
                return ""
            start, stop = found
        if stop - start > _MAX_SPEC_BYTES:
            return ""
        return model_pb2.ModelSpec.FromString(data[start:stop]).name
    except (WireError, DecodeError):
        return ""


def _parse(data: bytes) -> PredictRequest:
    specs = bytearray()
    inputs: dict[str, RawTensor] = {}
    output_filter: list[str] = []
    has_spec = False
    allowance = Allowance()
    for tag, start, stop in fields(data, 0, len(data), allowance=allowance):
        if tag == _INPUTS:
            tensor = parse_entry(data, start, stop, allowance)
            if tensor.alias in inputs:
                inputs[tensor.alias].check_values()  # the last one wins, but protobuf minds the others too
            inputs[tensor.alias] = tensor
            if len(inputs) > MAX_INPUTS:
                raise WireError(f"it has more than {MAX_INPUTS} inputs")
        elif tag == _MODEL_SPEC:
            has_spec = True
            specs += length_delimited(1, data[start:stop])
            if len(specs) > _MAX_SPEC_BYTES:
                raise WireError(f"its model_spec takes more than {_MAX_SPEC_BYTES} bytes")
        elif tag == _OUTPUT_FILTER:
            name = _name(data, start, stop)
            if len(output_filter) < MAX_INPUTS:
                output_filter.append(name)
        elif tag in (_STREAMED_OPTIONS, _REQUEST_OPTIONS):
            if stop - start > _MAX_OPTION_BYTES:
                raise WireError(f"its options take more than {_MAX_OPTION_BYTES} bytes")
            # Refused if protobuf would refuse them; nothing else is done with them.
            predict_pb2.PredictRequest.FromString(length_delimited(tag >> 3, data[start:stop]))
    return PredictRequest(_model_spec(bytes(specs)) if has_spec else None, inputs, tuple(output_filter))


def parse_entry(data: bytes, start: int, stop: int, allowance: Allowance | None = None) -> RawTensor:
    """Parse one entry of a `map<string, TensorProto>`. A missing key or value is the empty one, as for protobuf.

    Args:
        data: Bytes that hold the entry.
        start: Where it starts.
        stop: Where it ends.
        allowance: What its fields are taken from; by default it has its own.

    Raises:
        WireError: The bytes are no such entry.
        DecodeError: The same, found by protobuf.
        UnicodeDecodeError: Its key is not UTF-8.
        MalformedTensor: See `scan_tensor`.
    """
    allowance = allowance or Allowance()
    plain = _plain_entry(data, start, stop, allowance)
    if plain is not None:
        return plain
    alias = ""
    value: tuple[int, int] | None = None
    merged: list[bytes] = []
    for tag, begin, end in fields(data, start, stop, MAX_DEPTH - 1, allowance):
        if tag == _KEY:
            alias = _name(data, begin, end)
        elif tag == _VALUE:
            if value is not None:  # protobuf merges messages, which is to parse them one after the other
                scan_tensor(alias, data, begin, end, MAX_DEPTH - 2, allowance)  # each must be a message by itself
                if not merged:
                    scan_tensor(alias, data, *value, MAX_DEPTH - 2, allowance)
                    merged += slices(data, *value)
                merged += slices(data, begin, end)
            value = begin, end
    if merged:
        whole = b"".join(merged)
        merged.clear()
        return scan_tensor(alias, whole, 0, len(whole), MAX_DEPTH - 2, allowance)
    if value is None:
        return scan_tensor(alias, b"", 0, 0)
    return scan_tensor(alias, data, *value, MAX_DEPTH - 2, allowance)


def _plain_entry(data: bytes, start: int, stop: int, allowance: Allowance) -> RawTensor | None:
    """Parse an entry that is a short key and then a value, as nearly all are; None if it is not."""
    try:
        size = data[start + 1]
        value = start + 2 + size
        if data[start] != _KEY or size >= 0x80 or data[value] != _VALUE:
            return None
        length, begin = long_size(data, value + 1)
    except (IndexError, WireError):
        return None
    if begin + length != stop:  # no length reaches beyond the entry, for otherwise the sum is wrong
        return None
    return scan_tensor(data[start + 2 : value].decode(), data, begin, stop, MAX_DEPTH - 2, allowance)


def _name(data: bytes, start: int, stop: int) -> str:
    if stop - start > _MAX_NAME_BYTES:
        raise WireError(f"it has a name of more than {_MAX_NAME_BYTES} bytes")
    return data[start:stop].decode()


def _model_spec(specs: bytes) -> ModelSpec:
    """Parse the field model_spec of a request, as often as it was sent."""
    return spec_from_proto(predict_pb2.PredictRequest.FromString(specs).model_spec)


def spec_from_proto(message: model_pb2.ModelSpec) -> ModelSpec:
    """See a ModelSpec that protobuf has parsed as ours."""
    choice = message.WhichOneof("version_choice")
    return ModelSpec(
        message.name,
        message.version.value if choice == "version" else None,
        message.version_label if choice == "version_label" else None,
        message.signature_name,
    )
