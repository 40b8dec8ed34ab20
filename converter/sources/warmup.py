"""The requests that a SavedModel brings along for warming up: real inputs, chosen by its owner.

TensorFlow Serving keeps them in `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog
messages. Only Predict requests are of use here; others are counted.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from converter.errors import DamagedWarmup
from protos.serving import predict_pb2, prediction_log_pb2
from server.errors import MalformedTensor
from server.wire.tensors import tensor_from_proto

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
"""Where a SavedModel has its warm-up records, relative to its folder."""

MAX_RECORDS = 1000
"""TensorFlow Serving refuses to load a model with more (serving: servables/tensorflow/saved_model_warmup_util.h)."""

MAX_BYTES = 1 << 30
"""Bound for the whole file, and again for all arrays made of it: 1 GiB, since all of it is held in memory."""

_ADVICE = "Write the file again with tf.io.TFRecordWriter, or remove it to convert without it."


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """One recorded Predict request.

    Attributes:
        signature_name: As recorded, or "serving_default" where the record names none.
        inputs: The tensors by alias; strings are objects of type bytes.
    """

    signature_name: str
    inputs: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Warmup:
    """All that a model's warm-up file holds.

    Attributes:
        requests: The Predict requests, in their order.
        skipped: How many records of each other kind there were, by the name of PredictionLog's field, such as
            "classify_log"; "" counts records that hold nothing.
    """

    requests: list[WarmupRequest] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def read_warmup_requests(model: Path) -> Warmup:
    """Read the warm-up records of a SavedModel.

    Args:
        model: The SavedModel's folder. A model without such a file gives no requests.

    Raises:
        DamagedWarmup: The file is there, but it, one of its records or one of their tensors cannot be read.
    """
    path = model / WARMUP_FILE
    found = Warmup()
    budget = MAX_BYTES
    try:
        with path.open("rb") as file:
            for number, record in enumerate(_records(path, file), start=1):
                if number > MAX_RECORDS:
                    raise DamagedWarmup(
                        f"The warm-up file {path} has more than {MAX_RECORDS} records.",
                        "Keep the most typical ones; TensorFlow Serving refuses more, too.",
                    )
                log = _parse(path, number, record)
                kind = log.WhichOneof("log_type") or ""
                if kind == "predict_log":
                    request = _request(path, number, log.predict_log.request, budget)
                    budget -= sum(array.nbytes for array in request.inputs.values())
                    found.requests.append(request)
                else:
                    found.skipped[kind] += 1
    except FileNotFoundError:
        return found
    except OSError as error:
        raise DamagedWarmup(
            f"The warm-up file {path} cannot be read: {error.strerror}.", "Check what it is and who may read it."
        ) from error
    return found


def _records(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Yield the payloads of a TFRecord file.

    A record is its length (8 bytes, little-endian), the masked CRC-32C of these, the payload and its masked
    CRC-32C (tensorflow: core/lib/io/record_writer.h).
    """
    left = path.stat().st_size
    if left > MAX_BYTES:
        raise DamagedWarmup(
            f"The warm-up file {path} has {left} bytes; {MAX_BYTES} are the limit.", "Keep fewer or smaller records."
        )
    number = 0
    while header := file.read(12):
        number += 1
        left -= len(header)
        length = int.from_bytes(header[:8], "little")
        if len(header) < 12 or _masked_crc(header[:8]) != header[8:]:
            raise DamagedWarmup(f"In the warm-up file {path}, the length of record {number} is damaged.", _ADVICE)
        if length + 4 > left:
            raise DamagedWarmup(f"The warm-up file {path} ends within record {number}.", _ADVICE)
        payload = file.read(length)
        if _masked_crc(payload) != file.read(4):
            raise DamagedWarmup(f"In the warm-up file {path}, record {number} is damaged.", _ADVICE)
        left -= length + 4
        yield payload


def _masked_crc(data: bytes) -> bytes:
    """A TFRecord checksum: CRC-32C, rotated right by 15 bits, plus a constant, in four bytes."""
    crc: int = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF
    return masked.to_bytes(4, "little")


def _parse(path: Path, number: int, record: bytes) -> prediction_log_pb2.PredictionLog:
    try:
        return prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise DamagedWarmup(f"In the warm-up file {path}, record {number} is no PredictionLog.", _ADVICE) from error


def _request(path: Path, number: int, request: predict_pb2.PredictRequest, budget: int) -> WarmupRequest:
    inputs: dict[str, NDArray[Any]] = {}
    for alias in sorted(request.inputs):
        try:
            array = tensor_from_proto(request.inputs[alias], alias, max_tensor_bytes=budget)
        except MalformedTensor as error:
            raise DamagedWarmup(
                f"In the warm-up file {path}, record {number} has a broken input: {error}.", _ADVICE
            ) from error
        budget -= array.nbytes
        inputs[alias] = array
    return WarmupRequest(request.model_spec.signature_name or "serving_default", inputs)
