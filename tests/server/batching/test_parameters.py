"""Tests of `server.batching.parameters`: TensorFlow Serving's files, its defaults and its refusals."""

from pathlib import Path
from typing import Any

import pytest

from server.batching.parameters import BatchingParameters, bucketed, read_parameters
from server.errors import InvalidRequest


def read(folder: Path, text: str) -> BatchingParameters:
    """What a file means."""
    path = folder / "batching.config"
    path.write_text(text)
    return read_parameters(path)


def test_a_file_of_tensorflow_serving_is_read_whole(tmp_path: Path) -> None:
    """Every field has its effect; the pool's name has nothing to name here but a metric."""
    text = """
        max_batch_size { value: 128 }
        batch_timeout_micros { value: 2000 }
        max_enqueued_batches { value: 1000000 }
        num_batch_threads { value: 8 }
        thread_pool_name { value: "mine" }
        allowed_batch_sizes: 4
        allowed_batch_sizes: 32
        pad_variable_length_inputs: true
        enable_large_batch_splitting { value: true }
        max_execution_batch_size { value: 32 }
    """
    assert read(tmp_path, text) == BatchingParameters(
        max_batch_size=32,
        batch_timeout_micros=2000,
        max_enqueued_batches=1_000_000,
        num_batch_threads=8,
        allowed_batch_sizes=(4, 32),
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=True,
        largest_request=128,
        thread_pool_name="mine",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"max_batch_size": 64, "max_enqueued_batches": 10, "largest_request": 1000}),
        ("max_batch_size { value: 7 }", {"max_batch_size": 7, "largest_request": 7}),
        ("allowed_batch_sizes: [10, 1000]", {"max_batch_size": 1000, "allowed_batch_sizes": (10, 1000)}),
        ("max_execution_batch_size { value: 5 }", {"max_batch_size": 64, "largest_request": 1000}),
        (
            "max_batch_size { value: 9 } enable_large_batch_splitting { value: true }",
            {"max_batch_size": 9, "enable_large_batch_splitting": True},
        ),
        ("max_enqueued_batches { value: 0 }", {"max_enqueued_batches": 1}),
    ],
)
def test_what_is_left_out_has_a_default(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    """TensorFlow's, except that fewer rows are joined than its 1,000 and one batch runs at a time."""
    found = read(tmp_path, text)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.num_batch_threads == 1
    assert found.thread_pool_name == "batch_threads"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        ),
        (
            "allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 1000",
        ),
        (
            (
                "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
                "max_execution_batch_size { value: 4 } allowed_batch_sizes: 9"
            ),
            (
                "Last entry in allowed_batch_sizes must be less than or equal to max_batch_size; last entry was 9; "
                "expected 8"
            ),
        ),
        (
            (
                "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
                "max_execution_batch_size { value: 4 } allowed_batch_sizes: 8"
            ),
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was 8; expected 4",
        ),
        (
            (
                "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
                "max_execution_batch_size { value: 9 }"
            ),
            (
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                "max_execution_batch_size."
            ),
        ),
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        (
            "max_enqueued_batches { value: 0 } enable_large_batch_splitting { value: true }",
            "max_enqueued_batches must be positive; was 0",
        ),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [4, 2, 8]",
            "allowed_batch_sizes must be positive, increase, and end with max_batch_size",
        ),
        ("max_batch_size: 8", "line 1"),
        ("max_bach_size { value: 8 }", "max_bach_size"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """In TensorFlow Serving's words where it has any, and with the file's name."""
    with pytest.raises(InvalidRequest) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'batching.config'}: ")
    assert words in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, and one that is no text."""
    with pytest.raises(InvalidRequest, match="none: No such file or directory"):
        read_parameters(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="binary: not UTF-8 text"):
        read_parameters(tmp_path / "binary")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be positive; was 0"),
        ({"batch_timeout_micros": -1}, "non-negative"),
        ({"max_enqueued_batches": 0}, "max_enqueued_batches must be positive"),
        ({"num_batch_threads": 0}, "num_batch_threads must be positive"),
        ({"allowed_batch_sizes": (0, 16)}, "positive"),
        ({"allowed_batch_sizes": (8,)}, "end with max_batch_size"),
        ({"largest_request": 15}, "largest_request must be as large as max_batch_size"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters: dict[str, Any], words: str) -> None:
    """A wrong value is noticed when it is read, not when requests come."""
    with pytest.raises(ValueError, match=words):
        BatchingParameters(**parameters)


def test_sizes_to_try_and_to_fill_up_to() -> None:
    """Allowed sizes are both; without any, powers of two are tried and nothing is filled up."""
    plain = BatchingParameters(max_batch_size=12)
    assert plain.buckets == (1, 2, 4, 8, 12)
    assert [plain.padded(rows) for rows in (1, 3, 12)] == [1, 3, 12]
    sized = BatchingParameters(max_batch_size=12, allowed_batch_sizes=(3, 12))
    assert sized.buckets == (3, 12)
    assert [sized.padded(rows) for rows in (1, 3, 4, 12)] == [3, 3, 12, 12]
    assert bucketed(16) == (1, 2, 4, 8, 16)
