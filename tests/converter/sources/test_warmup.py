"""Warm-up records: what TensorFlow wrote comes out; what is damaged is named."""

import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from converter.errors import DamagedWarmup, InputsRejected
from converter.sources import warmup
from converter.sources.warmup import WARMUP_FILE, read_warmup_requests
from protos.serving import prediction_log_pb2
from protos.tensorflow import tensor_pb2

Copy = Callable[[str], Path]


def _record(payload: bytes) -> bytes:
    """Frame a record, written down here a second time so that the reader is not compared with itself."""

    def masked(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def _write(folder: Path, content: bytes) -> Path:
    file = folder / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return folder


def _predict(value: float, **tensor: int) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["x"].dtype = tensor_pb2.DT_FLOAT
    log.predict_log.request.inputs["x"].float_val.append(value)
    for size in tensor.values():
        log.predict_log.request.inputs["x"].tensor_shape.dim.add(size=size)
    return log.SerializeToString()


def _cause(folder: Path) -> str:
    with pytest.raises(DamagedWarmup) as caught:
        read_warmup_requests(folder)
    assert caught.value.advice
    return caught.value.cause


def test_records_that_tensorflow_wrote(saved_models: Path) -> None:
    """Predict requests come out with signature and arrays in their order; other kinds are counted."""
    found = read_warmup_requests(saved_models / "tf2")
    assert [request.signature_name for request in found.requests] == ["serving_default", "serving_default", "length"]
    first, second, third = (request.inputs for request in found.requests)
    np.testing.assert_array_equal(first["x"], np.array([[1, 2]], np.float32))
    np.testing.assert_array_equal(second["x"], np.zeros((3, 2), np.float32))
    assert first["x"].dtype == np.float32
    assert third["text"].tolist() == [b"a", b"\xff\x00"]
    assert found.skipped == {
        "": 1,
        "classify_log": 1,
        "regress_log": 1,
        "multi_inference_log": 1,
        "session_run_log": 1,
        "predict_streamed_log": 1,
    }


def test_a_model_without_records_gives_none(saved_models: Path) -> None:
    """Most models have no warm-up file: that is no error."""
    assert read_warmup_requests(saved_models / "tf1") == warmup.Warmup()


def test_an_empty_file_gives_none(tmp_path: Path) -> None:
    """A file without records is whole."""
    assert read_warmup_requests(_write(tmp_path, b"")).requests == []


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    """A file cut off anywhere but between records is damaged, and the record is numbered."""
    first, second = _record(_predict(1)), _record(_predict(2))
    for stop in range(len(second)):
        folder = _write(tmp_path, first + second[:stop])
        if stop == 0:
            assert len(read_warmup_requests(folder).requests) == 1
        else:
            assert "record 2" in _cause(folder)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """The checksums cover every byte of a record."""
    record = _record(_predict(1))
    for position in range(len(record)):
        spoilt = bytearray(record)
        spoilt[position] ^= 0x10
        assert "record 1" in _cause(_write(tmp_path, bytes(spoilt)))


def test_a_record_of_something_else_is_named(tmp_path: Path) -> None:
    """A TFRecord file of other things is no warm-up file."""
    assert "record 2 " in _cause(_write(tmp_path, _record(_predict(1)) + _record(b"\xff\xff")))


def test_a_broken_tensor_is_named(tmp_path: Path) -> None:
    """The record and the input are named, and that the file, not the user's own inputs, is at fault."""
    cause = _cause(_write(tmp_path, _record(_predict(1, rows=-1))))
    assert "record 1" in cause
    assert "x" in cause
    assert issubclass(DamagedWarmup, InputsRejected)


def test_claims_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of a few bytes cannot claim more memory than the bound, not even all of them together."""
    monkeypatch.setattr(warmup, "MAX_BYTES", 1000)
    assert len(read_warmup_requests(_write(tmp_path, _record(_predict(1, rows=100)) * 2)).requests) == 2
    assert "record 3" in _cause(_write(tmp_path, _record(_predict(1, rows=100)) * 3))


def test_a_file_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is looked at before it is read."""
    monkeypatch.setattr(warmup, "MAX_BYTES", 10)
    assert "10 are the limit" in _cause(_write(tmp_path, _record(_predict(1))))


def test_too_many_records_are_refused(tmp_path: Path) -> None:
    """TensorFlow Serving loads models with a thousand records, and no more."""
    assert len(read_warmup_requests(_write(tmp_path, _record(_predict(1)) * 1000)).requests) == 1000
    assert "more than 1000" in _cause(_write(tmp_path, _record(_predict(1)) * 1001))


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    """What cannot be opened is damage too, not a crash."""
    (tmp_path / WARMUP_FILE).mkdir(parents=True)
    assert "cannot be read" in _cause(tmp_path)
