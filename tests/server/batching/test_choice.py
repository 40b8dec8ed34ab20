"""Tests of `server.batching.choice`."""

from pathlib import Path
from typing import Any

import pytest

from server.batching.choice import Choice, choose
from server.batching.parameters import BatchingParameters
from server.errors import DamagedPackage, InvalidRequest


def choice(file: Path | None = None, size: int | None = None, timeout: int | None = None, **switches: bool) -> Choice:
    """The function for settings that are mostly left alone."""
    return choose(file, size, timeout, **({"per_model": False, "fixed_sizes": False} | switches))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """TensorFlow Serving's parameters."""
    path = tmp_path / "batching.config"
    path.write_text("max_batch_size { value: 8 } allowed_batch_sizes: [2, 8] num_batch_threads { value: 3 }")
    return path


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"size": 32}, {"max_batch_size": 32}),
        ({"timeout": 100}, {"batch_timeout_micros": 100}),
        ({"size": 6, "fixed_sizes": True}, {"max_batch_size": 6, "allowed_batch_sizes": (1, 2, 4, 6)}),
    ],
)
def test_our_settings(tmp_path: Path, settings: dict[str, Any], expected: dict[str, Any]) -> None:
    """On by default, large requests in pieces; on some devices batches have fixed sizes."""
    assert choice(**settings)(tmp_path) == BatchingParameters(enable_large_batch_splitting=True, **expected)


def test_one_row_at_a_time_switches_joining_off(tmp_path: Path) -> None:
    """There is no queue then."""
    assert choice(size=1)(tmp_path) is None


def test_a_file_and_what_overrules_it(tmp_path: Path, file: Path) -> None:
    """Our options go before the file, which goes before the defaults."""
    theirs = BatchingParameters(  # a file that does not say so splits nothing
        8, allowed_batch_sizes=(2, 8), num_batch_threads=3, max_enqueued_batches=10, largest_request=8
    )
    assert choice(file, fixed_sizes=True)(tmp_path) == theirs
    assert choice(file, 1)(tmp_path) is None
    overruled = choice(file, 4, 50)(tmp_path)
    assert overruled is not None
    assert (overruled.max_batch_size, overruled.batch_timeout_micros, overruled.allowed_batch_sizes) == (4, 50, ())
    assert overruled.largest_request == 8
    enlarged = choice(file, 64)(tmp_path)
    assert enlarged is not None
    assert (enlarged.max_batch_size, enlarged.largest_request) == (64, 64)
    with pytest.raises(InvalidRequest, match="No such file"):
        choice(tmp_path / "none")


def test_a_model_may_bring_its_own(tmp_path: Path, file: Path) -> None:
    """Only if that is asked for; the number of threads stays the server's, as in TensorFlow Serving."""
    package = tmp_path / "1"
    package.mkdir()
    (package / "batching_params.pbtxt").write_text("max_batch_size { value: 5 } num_batch_threads { value: 99 }")
    deaf, heeding = choice(file)(package), choice(file, per_model=True)
    assert deaf is not None
    assert deaf.max_batch_size == 8
    own = heeding(package)
    assert own is not None
    assert (own.max_batch_size, own.num_batch_threads, own.allowed_batch_sizes) == (5, 3, ())
    assert heeding(tmp_path) == deaf
    (package / "batching_params.pbtxt").write_text("max_batch_size: 5")
    with pytest.raises(DamagedPackage, match=r"batching_params\.pbtxt"):
        heeding(package)
