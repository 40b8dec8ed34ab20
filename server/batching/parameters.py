"""How requests are joined: our settings, and TensorFlow Serving's parameters read from its files. Pure but for reading.

The rules and texts of those files are those of TensorFlow Serving's batching_session.cc, bundle_factory_util.cc and
TensorFlow's shared_batch_scheduler.h, defaults included, where nothing here says otherwise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import text_format

from protos.serving.batching_pb2 import BatchingParameters as FileParameters
from server.errors import InvalidRequest

DEFAULT_BATCH_SIZE: Final = 16
"""Rows joined. Enough to keep a CPU busy with most models."""
_THEIR_BATCH_SIZE: Final = 1000  # SharedBatchScheduler::QueueOptions::input_batch_size_limit
_JOINED: Final = 64  # rows joined if a file does not say how many: TensorFlow's 1,000 would take minutes to prove
_THEIR_ENQUEUED: Final = 10  # SharedBatchScheduler::QueueOptions::max_enqueued_batches
_THEIR_POOL: Final = "batch_threads"  # SharedBatchScheduler::Options::thread_pool_name


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """How a signature's requests are joined; most names are TensorFlow Serving's."""

    max_batch_size: int = DEFAULT_BATCH_SIZE
    """Rows that are run together at most, unless one request has more."""
    batch_timeout_micros: int = 0
    """How long the first request of a batch that is not full waits for more."""
    max_enqueued_batches: int = 64
    """How many full batches may wait; more is refused."""
    num_batch_threads: int = 1
    """How many batches of a signature run at once."""
    allowed_batch_sizes: tuple[int, ...] = ()
    """Increasing; what is run is filled up to the next of these sizes. None: run as it is."""
    pad_variable_length_inputs: bool = False
    """Whether requests of different lengths are joined, the shorter ones filled with their first element."""
    enable_large_batch_splitting: bool = False
    """Whether a request of more rows than a batch is run in pieces; else it is run as it is."""
    largest_request: int | None = None
    """Requests of more rows are refused. None: no size is."""
    thread_pool_name: str = _THEIR_POOL
    """TensorFlow's name for what runs batches, with its default: a label of its metrics, and nothing else here."""

    def __post_init__(self) -> None:
        """Refuse parameters that cannot work."""
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise ValueError(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        if self.largest_request is not None and self.largest_request < self.max_batch_size:
            raise ValueError("largest_request must be as large as max_batch_size")
        sizes = self.allowed_batch_sizes
        if sizes and (sizes[-1] != self.max_batch_size or sizes[0] < 1 or list(sizes) != sorted(set(sizes))):
            raise ValueError("allowed_batch_sizes must be positive, increase, and end with max_batch_size")

    @property
    def buckets(self) -> tuple[int, ...]:
        """The sizes that are tried before a version serves: the allowed ones, or powers of two and the largest."""
        if self.allowed_batch_sizes:
            return self.allowed_batch_sizes
        powers = [1 << exponent for exponent in range(self.max_batch_size.bit_length())]
        return tuple(sorted({*powers, self.max_batch_size}))

    def padded(self, rows: int) -> int:
        """How many rows are run for so many: the next allowed size, if there is one."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def bucketed(size: int) -> tuple[int, ...]:
    """Powers of two up to a size: for devices to which every new size is a costly surprise."""
    return BatchingParameters(max_batch_size=size).buckets


def read_parameters(path: Path) -> BatchingParameters:
    """Read a file of TensorFlow Serving's BatchingParameters.

    Raises:
        InvalidRequest: it cannot be read, does not parse, or holds what TensorFlow Serving refuses.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path}: not UTF-8 text") from error
    try:
        given = text_format.Parse(text, FileParameters())
    except text_format.ParseError as error:
        raise InvalidRequest(f"{path}: {'line ' if error.GetLine() else ''}{error}") from error
    try:
        return from_message(given)
    except ValueError as error:
        raise InvalidRequest(f"{path}: {error}") from error


def from_message(given: FileParameters) -> BatchingParameters:
    """What TensorFlow Serving's parameters mean here.

    What they leave out has TensorFlow's defaults, with two exceptions. num_batch_threads: TensorFlow's is a thread per
    core, where a run of ours takes all cores by itself. max_batch_size: TensorFlow's 1,000 is the largest request here
    too, but fewer rows are joined.

    Raises:
        ValueError: with TensorFlow Serving's text.
    """
    limit = given.max_batch_size.value if given.HasField("max_batch_size") else _THEIR_BATCH_SIZE
    if limit < 1:
        raise ValueError(f"input_batch_size_limit must be positive; was {limit}")
    splits = given.enable_large_batch_splitting.value
    sizes = tuple(given.allowed_batch_sizes)
    batch = limit if given.HasField("max_batch_size") or sizes or splits else _JOINED
    if splits and given.HasField("max_execution_batch_size"):
        batch = given.max_execution_batch_size.value
    if sizes:
        _check_sizes(sizes, limit, batch, splits=splits)
    if batch > limit:
        raise ValueError(
            "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
            "max_execution_batch_size."
        )
    enqueued = given.max_enqueued_batches.value if given.HasField("max_enqueued_batches") else _THEIR_ENQUEUED
    return BatchingParameters(
        max_batch_size=batch,
        batch_timeout_micros=given.batch_timeout_micros.value,
        max_enqueued_batches=1 if enqueued == 0 and not splits else enqueued,  # as TensorFlow rewrites it
        num_batch_threads=given.num_batch_threads.value if given.HasField("num_batch_threads") else 1,
        allowed_batch_sizes=sizes,
        pad_variable_length_inputs=given.pad_variable_length_inputs,
        enable_large_batch_splitting=splits,
        largest_request=limit,
        thread_pool_name=given.thread_pool_name.value or _THEIR_POOL,
    )


def _check_sizes(sizes: tuple[int, ...], limit: int, batch: int, *, splits: bool) -> None:
    last = sizes[-1]
    if not splits and last != limit:
        raise ValueError(
            f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {last}; expected {limit}"
        )
    if splits and last > limit:
        raise ValueError(
            "Last entry in allowed_batch_sizes must be less than or equal to max_batch_size; last entry was "
            f"{last}; expected {limit}"
        )
    if splits and last != batch:
        raise ValueError(
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was "
            f"{last}; expected {batch}"
        )
