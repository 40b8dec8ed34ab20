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


@dataclasses.dataclass
class _Held:
    """An initializer, the variables chosen for it, and all those with equal values in the same layout."""

    name: str
    variables: list[Variable]
    equal: list[Variable]
    order: tuple[int, ...]
    reshaped: bool

    def described(self) -> dict[str, Any]:
        return {
            "initializer": self.name,
            "variables": [variable.described() for variable in self.variables],
            "transposition": list(self.order),
            "reshaped": self.reshaped,
        }


def read_variables(
    by_model: Iterable[Iterable[TfVariable]],
) -> list[list[Variable]]:
    """Read the values of the TensorFlow variables of each model, in the order of their names; each is read once."""
    found: dict[int, Variable] = {}
    result = []
    for variables in by_model:
        numeric = [v for v in variables if v.dtype.name not in ("string", "resource", "variant")]
        for one in numeric:
            if id(one.handle) not in found:
                found[id(one.handle)] = Variable(one.name.removesuffix(":0"), bool(one.trainable), one.numpy())
        own = {id(one.handle): found[id(one.handle)] for one in numeric}
        result.append(sorted(own.values(), key=lambda variable: variable.name))
    return result


def map_initializers(
    models: Sequence[onnx.ModelProto], variables: Sequence[Sequence[Variable]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Map every initializer of every model to the variables whose values it holds.

    Args:
        models: The exports.
        variables: Of each model those that it reads.

    Returns:
        Entries of result.json's `initializers` (file index, initializer, variables, transposition: the permutation of
        the variable's axes that comes first, and whether axes were then merged, split, added or dropped), and the
        variables that no initializer holds unchanged, such as batch normalisation folded into a convolution.
    """
    entries: list[dict[str, Any]] = []
    mapped: set[int] = set()
    for index, (model, own) in enumerate(zip(models, variables, strict=True)):
        for held in _map_one(model, own):
            mapped.update(id(variable) for variable in held.variables)
            entries.append({"onnx": index, **held.described()})
    every = {id(variable): variable for own in variables for variable in own}
    return entries, [variable.described() for key, variable in every.items() if key not in mapped]


def _map_one(model: onnx.ModelProto, variables: Sequence[Variable]) -> list[_Held]:
    by_fingerprint: dict[_Fingerprint, list[Variable]] = {}
    for variable in variables:
        by_fingerprint.setdefault(_fingerprint(variable.value), []).append(variable)
    held = []
    for initializer in _initializers(model):
        value = numpy_helper.to_array(initializer)
        candidates = by_fingerprint.get(_fingerprint(value), []) if value.dtype.kind != "O" else []
        fits = [(one, order) for one in candidates if (order := _order(one.value, value)) is not None]
        held.append(_chosen(initializer.name, value, fits))
    # The exporter merges equal constants, so one that lost its own initializer is held by its equals'.
    found = {id(variable) for one in held for variable in one.variables}
    for one in held:
        if one.variables:
            one.variables.extend(variable for variable in one.equal if id(variable) not in found)
    return held


def _initializers(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in subgraphs(model.graph):
        yield from graph.initializer


def _fingerprint(value: Array) -> _Fingerprint:
    """Dtype, number of elements, and the sum of the elements' bits modulo 2**64: the same in every order."""
    bits = np.ascontiguousarray(value).view(f"u{value.dtype.itemsize}") if value.dtype.itemsize <= 8 else value.real
    return value.dtype.str, value.size, int(bits.sum(dtype=np.uint64))


def _chosen(name: str, value: Array, fits: Sequence[tuple[Variable, tuple[int, ...]]]) -> _Held:
    chosen = _by_name(name, value, [variable for variable, _ in fits])
    orders = [order for variable, order in fits if any(variable is one for one in chosen)]
    order = orders[0] if orders else ()
    moved = order != tuple(range(len(order)))
    reshaped = bool(chosen) and tuple(chosen[0].value.shape[axis] for axis in order) != value.shape
    equal = [
        variable for variable, own in fits if own == order and chosen and variable.value.shape == chosen[0].value.shape
    ]
    return _Held(name, chosen, equal, order if moved else (), reshaped)


def _order(variable: Array, value: Array) -> tuple[int, ...] | None:
    """The permutation of the variable's axes after which its elements come in the initializer's order."""
    own = tuple(range(variable.ndim))
    if np.array_equal(_bits(variable).reshape(-1), _bits(value).reshape(-1)):
        return own
    if variable.ndim > _MAX_PERMUTED_RANK:
        return None
    # Orders that keep all axes first, for merging axes can make one order look like another.
    target = [size for size in value.shape if size != 1]
    orders = sorted(itertools.permutations(own), key=lambda order: _sizes(variable, order) != target)
    for order in orders:
        ones_stay = [axis for axis in order if variable.shape[axis] == 1] == [a for a in own if variable.shape[a] == 1]
        if ones_stay and np.array_equal(_bits(variable).transpose(order).reshape(value.shape), _bits(value)):
            return order
    return None


def _sizes(variable: Array, order: Sequence[int]) -> list[int]:
    return [variable.shape[axis] for axis in order if variable.shape[axis] != 1]


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
