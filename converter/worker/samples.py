"""Representative inputs that came with the job: checked against the signature, then made into batches.

Pure numpy: nothing here asks TensorFlow whether it accepts them (`golden` does).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from converter.worker.protocol import FailureKind, WorkerFailure
from converter.worker.signature import Signature, Spec
from server.arrays import Array, is_string

Inputs = Mapping[str, Array]

_MAX_ROWS: Final = 1000  # looked at, of all samples together
_MAX_CASES: Final = 8  # samples that cannot be cut into rows, used as they are
_MAX_SHAPES: Final = 4  # different row shapes (lengths, image sizes) that appear among the cases
_ADVICE: Final = "Correct the file given with --inputs: one array per input, named by its alias."


@dataclasses.dataclass(frozen=True)
class Question:
    """Inputs to ask TensorFlow about; `batch` is None where they have no common first dimension."""

    batch: int | None
    inputs: Inputs


def conform(signature: Signature, inputs: Inputs) -> dict[str, Array]:
    """Check one sample against the signature and give its arrays the signature's dtypes.

    Raises:
        WorkerFailure: An alias is unknown or missing, a dtype cannot be cast without loss, or a shape does not fit
            (`inputs_rejected`).
    """
    aliases = {spec.alias for spec in signature.inputs}
    known = ", ".join(repr(alias) for alias in sorted(aliases))
    for alias in sorted(set(inputs) - aliases):
        raise _rejected(signature, f"there is no input {alias!r}; its inputs are {known}")
    for alias in sorted(aliases - set(inputs)):
        raise _rejected(signature, f"input {alias!r} is missing; its inputs are {known}")
    return {spec.alias: _conform_one(signature, spec, inputs[spec.alias]) for spec in signature.inputs}


def questions(signature: Signature, samples: Sequence[Inputs], batches: Sequence[int]) -> list[Question]:
    """Make golden cases of samples that `conform` passed.

    Where the signature can be batched, the samples' rows are pooled, duplicates left out, and batches of the sizes
    wanted are cut from them, going around where the rows run out. Otherwise samples are taken as they are.
    """
    as_given = [Question(_rows(sample), sample) for sample in samples[:_MAX_CASES]]
    if not signature.batchable or any(not _rows(sample) for sample in samples):
        return [Question(None, question.inputs) for question in as_given]
    groups: dict[tuple[Any, ...], list[Inputs]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample[spec.alias].shape[1:] for spec in signature.inputs), []).append(sample)
    result: list[Question] = []
    for group in list(groups.values())[:_MAX_SHAPES]:
        pool = {alias: np.concatenate([sample[alias] for sample in group])[:_MAX_ROWS] for alias in group[0]}
        distinct = _distinct_rows(pool)
        sizes = batches if not result else [min(len(distinct), max(batches))]
        start = 0
        for size in sizes:
            rows = [distinct[(start + index) % len(distinct)] for index in range(size)]
            result.append(Question(size, {alias: array[rows] for alias, array in pool.items()}))
            start += size
    return result


def shortened(signature: Signature, question: Question) -> Question | None:
    """The same inputs with every dynamic dimension but the batch cut to about half, or None if none can be.

    Representative samples often share one length; another is needed to notice a length that was baked into the export.
    Equal lengths stay equal.
    """
    inputs, cut = {}, False
    for spec in signature.inputs:
        array = question.inputs[spec.alias]
        for axis in spec.dynamic_axes:
            if (axis > 0 or question.batch is None) and array.shape[axis] > 1:
                array = np.take(array, range((array.shape[axis] + 1) // 2), axis=axis)
                cut = True
        inputs[spec.alias] = array
    return Question(question.batch, inputs) if cut else None


def _conform_one(signature: Signature, spec: Spec, array: Array) -> Array:
    target = spec.numpy_dtype
    if array.dtype != target:
        found = "string" if is_string(array) else str(array.dtype)
        cast = None if is_string(array) or target == np.dtype(object) else _cast(array, target)
        if cast is None:
            wanted = "string" if target == np.dtype(object) else str(target)
            raise _rejected(signature, f"{spec.alias!r} has dtype {found}, and {wanted} is needed")
        array = cast
    shape = spec.shape
    if shape is not None and (
        len(shape) != array.ndim
        or any(size not in (None, there) for size, there in zip(shape, array.shape, strict=True))
    ):
        wanted = "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
        raise _rejected(signature, f"{spec.alias!r} has shape {list(array.shape)}, and {wanted} is needed")
    return array


def _cast(array: Array, target: np.dtype[Any]) -> Array | None:
    """The array in another dtype, or None where any value would change."""
    if np.dtype(bool) in (array.dtype, target):
        return None
    with np.errstate(all="ignore"):
        result = array.astype(target)
        back = result.astype(array.dtype)
    same = (back == array) | ((back != back) & (array != array))  # noqa: PLR0124 - NaN stays NaN
    return result if bool(np.all(same)) else None


def _rows(inputs: Inputs) -> int | None:
    """The first dimension that all inputs share, or None."""
    sizes = {array.shape[0] if array.ndim else None for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _distinct_rows(pool: Inputs) -> list[int]:
    """Indices of the rows without repetitions, in order."""
    seen: dict[tuple[Any, ...], int] = {}
    for row in range(len(next(iter(pool.values())))):
        parts = (array[row] for array in pool.values())
        key = tuple(tuple(np.ravel(p)) if is_string(np.asarray(p)) else np.asarray(p).tobytes() for p in parts)
        seen.setdefault(key, row)
    return list(seen.values())


def _rejected(signature: Signature, what: str) -> WorkerFailure:
    return WorkerFailure(
        FailureKind.INPUTS_REJECTED,
        f"The inputs given do not fit signature {signature.name!r}: {what}.",
        _ADVICE,
    )
