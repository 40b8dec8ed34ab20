"""Signatures for tests of the worker's pure parts, described without TensorFlow."""

from typing import Any

import numpy as np

from converter.worker.signature import Signature, Spec


class Kind:
    """Stands where TensorFlow's DType stands: all that the pure parts ask of it is the numpy dtype."""

    def __init__(self, dtype: Any) -> None:
        self.as_numpy_dtype = np.dtype(dtype)


def spec(alias: str, dtype: Any, shape: tuple[int | None, ...] | None) -> Spec:
    """One input or output; dtype object is a string."""
    return Spec(alias, Kind(dtype), shape)


def signature(*inputs: Spec, outputs: tuple[Spec, ...] = ()) -> Signature:
    """A signature that nothing can call."""
    return Signature("sig", None, inputs, outputs)
