"""Which parameters a package's requests are joined by: the server's settings, TensorFlow Serving's files, or none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from server.batching.parameters import (
    DEFAULT_BATCH_SIZE,
    BatchingParameters,
    bucketed,
    read_parameters,
)
from server.errors import DamagedPackage, InvalidRequest
from server.repository.names import BATCHING

Choice = Callable[[Path], BatchingParameters | None]
"""From a package's folder to its parameters; None joins nothing."""


def choose(
    file: Path | None,
    max_batch_size: int | None,
    batch_timeout_micros: int | None,
    *,
    per_model: bool,
    fixed_sizes: bool,
) -> Choice:
    """Read the server's own parameters, and make the function that finds a package's.

    Args:
        file: TensorFlow Serving's parameters for all models, or None for the defaults.
        max_batch_size: Instead of what the file or the defaults say; 1 switches joining off.
        batch_timeout_micros: Likewise.
        per_model: Whether a package's own file goes before the server's. Of the server's, only the number of threads
            is heeded then, as in TensorFlow Serving.
        fixed_sizes: Whether batches are filled up to powers of two where no file says otherwise.

    Returns:
        Raises DamagedPackage for a package whose file cannot be followed.

    Raises:
        InvalidRequest: The file cannot be followed.
    """
    if max_batch_size == 1:
        return lambda _folder: None
    parameters = _default(max_batch_size or DEFAULT_BATCH_SIZE, fixed_sizes=fixed_sizes)
    if file is not None:
        parameters = read_parameters(file)
        if max_batch_size is not None:
            # Sizes that were allowed for another largest size say nothing about this one; a batch may be one request.
            limit = parameters.largest_request
            parameters = replace(
                parameters,
                max_batch_size=max_batch_size,
                allowed_batch_sizes=(),
                largest_request=None if limit is None else max(limit, max_batch_size),
            )
    if batch_timeout_micros is not None:
        parameters = replace(parameters, batch_timeout_micros=batch_timeout_micros)
    if not per_model:
        return lambda _folder: parameters

    def chosen(folder: Path) -> BatchingParameters:
        own = folder / BATCHING
        if not own.exists():
            return parameters
        try:
            return replace(read_parameters(own), num_batch_threads=parameters.num_batch_threads)
        except InvalidRequest as error:
            raise DamagedPackage(error.message) from error

    return chosen


def _default(max_batch_size: int, *, fixed_sizes: bool) -> BatchingParameters:
    sizes = bucketed(max_batch_size) if fixed_sizes else ()
    return BatchingParameters(
        max_batch_size=max_batch_size,
        allowed_batch_sizes=sizes,
        # Nothing larger is run than was proved before the version serves, and others have their turn in between.
        enable_large_batch_splitting=True,
    )
