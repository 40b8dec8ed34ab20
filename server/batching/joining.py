"""Making one batch of several requests' arrays, and taking its answers apart again. Pure numpy.

Rows are filled up with a row that is there, since zeros might be what a model cannot take; what is answered to those
is dropped.
"""

import itertools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from server.arrays import Array

Feeds = Mapping[str, Array]


def form(feeds: Feeds, *, any_length: bool) -> Hashable:
    """What requests must have in common to be joined, of their inputs.

    Args:
        feeds: Arrays by ONNX name.
        any_length: True if shapes may differ, not counting ranks.

    Returns:
        Names, dtypes, and shapes without the first dimension. Arrays without elements equal nothing: what a model does
        with them was not proved.
    """
    if any(array.size == 0 for array in feeds.values()):
        return object()
    if any_length:
        return tuple((name, array.dtype, array.ndim) for name, array in sorted(feeds.items()))
    return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(feeds.items()))


def join(requests: Sequence[Feeds], rows: int) -> dict[str, Array]:
    """The rows of requests of one form, one after the other, then the first row of the last one until there are enough.

    Args:
        requests: One at least.
        rows: How many the batch shall have, the requests' own rows at least.
    """
    return {name: _join([request[name] for request in requests], rows) for name in requests[0]}


def _join(arrays: Sequence[Array], rows: int) -> Array:
    if len({array.shape[1:] for array in arrays}) > 1:
        longest = np.max([array.shape for array in arrays], axis=0)[1:]
        arrays = [_lengthened(array, longest) for array in arrays]
    missing = rows - sum(len(array) for array in arrays)
    if missing == 0 and len(arrays) == 1:
        return arrays[0]
    return np.concatenate([*arrays, *[arrays[-1][:1]] * missing])


def _lengthened(array: Array, sizes: "np.typing.NDArray[np.int64]") -> Array:
    """The array with its first element added at the end of each axis but the first, as TensorFlow Serving fills."""
    result = np.full((len(array), *sizes), array.flat[0], array.dtype)
    result[tuple(slice(size) for size in array.shape)] = array
    return result


def split(answers: Sequence[Array], rows: Sequence[int]) -> list[list[Array]]:
    """Each request's part of the answers.

    Args:
        answers: Of the batch.
        rows: How many rows each request had.
    """
    ends = np.cumsum([0, *rows]).tolist()
    return [[answer[a:b] for answer in answers] for a, b in itertools.pairwise(ends)]
