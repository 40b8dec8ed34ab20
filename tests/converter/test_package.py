"""Tests of `converter.package`."""

from pathlib import Path

from converter.package import copy_batching_parameters


def test_batching_parameters_travel_with_their_model(tmp_path: Path) -> None:
    """TensorFlow Serving's file of a SavedModel comes along as it is; where there is none, none is made."""
    source, package = tmp_path / "saved_model", tmp_path / "package"
    source.mkdir()
    package.mkdir()
    copy_batching_parameters(source, package)
    assert list(package.iterdir()) == []
    (source / "batching_params.pbtxt").write_bytes(b"max_batch_size { value: 4 }\n")
    copy_batching_parameters(source, package)
    assert (package / "batching_params.pbtxt").read_bytes() == b"max_batch_size { value: 4 }\n"
