"""Signatures of a loaded model, described without TensorFlow: its objects are held here, and never looked into."""

import dataclasses
from typing import Any

import numpy as np

from converter.worker.foreign import ConcreteFunction, DType


@dataclasses.dataclass(frozen=True)
class Spec:
    """One input or output of a signature.

    Attributes:
        alias: The name that clients use.
        dtype: TensorFlow's `DType`.
        shape: One entry per axis, None where dynamic; None if even the rank is unknown.
    """

    alias: str
    dtype: DType
    shape: tuple[int | None, ...] | None

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of its arrays: object for strings."""
        dtype: np.dtype[Any] = np.dtype(self.dtype.as_numpy_dtype)
        return dtype

    @property
    def dynamic_axes(self) -> tuple[int, ...]:
        """The axes without a fixed size; none where the rank is unknown."""
        return tuple(axis for axis, size in enumerate(self.shape or ()) if size is None)


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature of the loaded model; `function` is TensorFlow's own, called with one keyword per alias."""

    name: str
    function: ConcreteFunction
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]

    @property
    def batchable(self) -> bool:
        """Whether the first dimension of every input is dynamic, as far as the shapes say."""
        return bool(self.inputs) and all(spec.shape and spec.shape[0] is None for spec in self.inputs)
