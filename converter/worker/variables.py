"""Which initializer of the exported graphs holds which TensorFlow variable.

Exporters rename, transpose, reshape and merge constants, so the map is found by value: first by a fingerprint that no
order of elements changes, then by exact comparison under every permutation of axes. Equal values (biases that are all
zero) are told apart by names where the exporter kept them, and are otherwise all listed.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from converter.worker.foreign import TfVariable
from converter.worker.graphs import subgraphs
from server.arrays import Array

_Fingerprint = tuple[str, int, int]
_MAX_PERMUTED_RANK: Final = 6  # 720 orders; higher ranks are tried in their own order only
_NO_WORDS: Final = frozenset({"", "readvariableop", "const", "resource", "variable", "0", "statefulpartitionedcall"})


@dataclasses.dataclass(frozen=True)
class Variable:
    """A TensorFlow variable with its value; `name` comes without ":0"."""

    name: str
    trainable: bool
    value: Array

    def described(self) -> dict[str, Any]:
        """Its entry in result.json."""
        return {"name": self.name, "shape": list(self.value.shape), "trainable": self.trainable}


def read_variables(variables: Iterable[TfVariable]) -> list[Variable]:
    """Read the values of TensorFlow's variables, each once, in the order of their names."""
    unique = {id(variable.handle): variable for variable in variables}
    found = [
        Variable(variable.name.removesuffix(":0"), bool(variable.trainable), variable.numpy())
        for variable in unique.values()
        if variable.dtype.is_numpy_compatible and variable.dtype.name not in ("string", "resource", "variant")
    ]
    return sorted(found, key=lambda variable: variable.name)


def map_initializers(
    models: Sequence[onnx.ModelProto], variables: Sequence[Variable]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Map every initializer of every model to the variables whose values it holds.

    Returns:
        Entries of result.json's `initializers` (file index, initializer, variables, transposition: the permutation of
        the variable's axes that comes first, and whether axes were then merged, split, added or dropped), and the
        variables that no initializer holds unchanged, such as batch normalisation folded into a convolution.
    """
    by_fingerprint: dict[_Fingerprint, list[Variable]] = {}
    for variable in variables:
        by_fingerprint.setdefault(_fingerprint(variable.value), []).append(variable)
    entries: list[dict[str, Any]] = []
    mapped: set[int] = set()
    for index, model in enumerate(models):
        for initializer in _initializers(model):
            value = numpy_helper.to_array(initializer)
            candidates = by_fingerprint.get(_fingerprint(value), []) if value.dtype.kind != "O" else []
            entry, same = _entry(initializer.name, value, candidates)
            mapped.update(id(variable) for variable in same)
            entries.append({"onnx": index, **entry})
    return entries, [variable.described() for variable in variables if id(variable) not in mapped]


def _initializers(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in subgraphs(model.graph):
        yield from graph.initializer


def _fingerprint(value: Array) -> _Fingerprint:
    """Dtype, number of elements, and the sum of the elements' bits modulo 2**64: the same in every order."""
    bits = np.ascontiguousarray(value).view(f"u{value.dtype.itemsize}") if value.dtype.itemsize <= 8 else value.real
    return value.dtype.str, value.size, int(bits.sum(dtype=np.uint64))


def _entry(name: str, value: Array, candidates: Sequence[Variable]) -> tuple[dict[str, Any], list[Variable]]:
    fits: list[tuple[Variable, tuple[int, ...]]] = []
    for variable in candidates:
        order = _order(variable.value, value)
        if order is not None:
            fits.append((variable, order))
    chosen = _by_name(name, value, [variable for variable, _ in fits])
    orders = [order for variable, order in fits if any(variable is one for one in chosen)]
    order = orders[0] if orders else ()
    moved = order != tuple(range(len(order)))
    reshaped = bool(chosen) and tuple(chosen[0].value.shape[axis] for axis in order) != value.shape
    entry = {
        "initializer": name,
        "variables": [variable.described() for variable in chosen],
        "transposition": list(order) if moved else [],
        "reshaped": reshaped,
    }
    return entry, chosen


def _order(variable: Array, value: Array) -> tuple[int, ...] | None:
    """The permutation of the variable's axes after which its elements come in the initializer's order."""
    own = tuple(range(variable.ndim))
    if np.array_equal(_bits(variable).reshape(-1), _bits(value).reshape(-1)):
        return own
    if variable.ndim > _MAX_PERMUTED_RANK:
        return None
    target = [size for size in value.shape if size != 1]
    for order in itertools.permutations(own):
        sizes = [variable.shape[axis] for axis in order if variable.shape[axis] != 1]
        ones_stay = [axis for axis in order if variable.shape[axis] == 1] == [a for a in own if variable.shape[a] == 1]
        if sizes == target and ones_stay:
            moved = _bits(variable).transpose(order).reshape(value.shape)
            if np.array_equal(moved, _bits(value)):
                return order
    return None


def _bits(array: Array) -> Array:
    """The array's bit patterns, so that NaN equals itself and -0 is not 0."""
    contiguous = np.asarray(array, order="C")
    return contiguous.view(f"u{array.dtype.itemsize}") if array.dtype.itemsize <= 8 else contiguous


def _by_name(name: str, value: Array, equal: Sequence[Variable]) -> list[Variable]:
    """Of variables with equal values those whose names fit best.

    A single number, or a tensor of equal numbers, may be a constant that only happens to have a variable's value (an
    epsilon, a scale of 1): there a common word is required.
    """
    if not equal:
        return []
    scores = {id(variable): len(_words(name) & _words(variable.name)) for variable in equal}
    best = max(scores.values())
    if best == 0 and value.size and bool(np.all(value == value.flat[0])):
        return [variable for variable in equal if "ReadVariableOp" in name]
    return [variable for variable in equal if scores[id(variable)] == best]


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[/:.]", name.lower())) - _NO_WORDS
