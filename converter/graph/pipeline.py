"""All rewrites in their order, and what holds before and after each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir

from converter.graph import (
    attention,
    gelu,
    layer_norm,
    matmul,
    positions,
    reshapes,
    shapes,
    transposes,
    unused,
)
from converter.graph.edit import Rewrite, Variables
from converter.graph.facts import Facts, gather_facts, without_weights

# A change of any rewrite's results is a new version: what was converted with another is converted again.
VERSION: Final = 2

REWRITES: Final[tuple[Rewrite, ...]] = (
    unused.REWRITE,
    shapes.REWRITE,
    matmul.REWRITE,  # before reshapes: once flattening is merged with what comes before it, it is hard to tell
    reshapes.REWRITE,
    transposes.REWRITE,
    layer_norm.REWRITE,
    gelu.REWRITE,
    attention.REWRITE,
    positions.REWRITE,  # last: it goes through operators that the others found
)
_MOST_ROUNDS: Final = 8  # one rewrite makes room for another; half as many are enough for all that was seen


class _Broken(Exception):
    """A graph is not what it must be after a rewrite."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of a model.

    Attributes:
        model: The rewritten one.
        applied: How often each rewrite found something to do, by name; without those that found nothing.
        refused: Why a rewrite's result was not used, by name.
    """

    model: ir.Model
    applied: dict[str, int]
    refused: dict[str, str]


def rewrite(
    model: ir.Model, variables: Variables, *, without: Collection[str] = (), rewrites: Sequence[Rewrite] = REWRITES
) -> Rewritten:
    """Apply the rewrites until none finds anything to do.

    After each, the graph must be valid ONNX with the inputs and outputs that it had, and hold the variables that it
    held; if not, that rewrite is undone and left out.

    Args:
        model: As exported. It is not changed.
        variables: Names of the variables that its initializers hold.
        without: Names of rewrites to leave out.
        rewrites: In their order.
    """
    applied: dict[str, int] = {}
    refused: dict[str, str] = {}
    idle: set[str] = set(without)  # what has nothing to do with the graph as it is
    candidate, facts = _afresh(model)
    for one in [*rewrites] * _MOST_ROUNDS:
        if one.name in idle:
            continue
        try:
            count = one.apply(candidate, facts, variables)
            if count:
                _require(model, candidate, variables)
        except (_Broken, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            # Whatever a rewrite stumbles over, the graph without it serves as well.
            refused[one.name] = f"{type(error).__name__}: {error}".removeprefix("_Broken: ")
            idle.add(one.name)
            candidate, facts = _afresh(model)
            continue
        if count:
            model = candidate
            candidate, facts = _afresh(model)
            applied[one.name] = applied.get(one.name, 0) + count
            idle = {*without, *refused}
        else:
            idle.add(one.name)
    return Rewritten(model, applied, refused)


def _afresh(model: ir.Model) -> tuple[ir.Model, Facts]:
    """A copy of the model to work on, its weights shared, and what is known of it."""
    copy = model.clone()
    return copy, gather_facts(copy)


def _require(before: ir.Model, after: ir.Model, variables: Variables) -> None:
    """Check what must hold after every rewrite."""
    if _interface(before) != _interface(after):
        raise _Broken("the inputs or outputs are others")
    there, now = _kept(before, variables), _kept(after, variables)
    for name in now:
        if (now[name].dtype, now[name].size) != (there[name].dtype, there[name].size):
            raise _Broken(f"the initializer {name!r} of a variable is another")
    lost = {v for name in there for v in variables[name]} - {v for name in now for v in variables[name]}
    if lost:
        raise _Broken(f"no initializer holds the variable {min(lost)!r} any more")
    try:
        onnx.checker.check_model(_ranked(without_weights(after)))
    except onnx.checker.ValidationError as error:
        raise _Broken(" ".join(str(error).split())) from error


def _interface(model: ir.Model) -> list[tuple[str | None, str, str]]:
    ports = (*model.graph.inputs, *model.graph.outputs)
    return [(port.name, str(port.dtype), str(port.shape)) for port in ports]


def _kept(model: ir.Model, variables: Variables) -> dict[str, ir.TensorProtocol]:
    graphs = [model.graph, *model.graph.subgraphs()]
    named = (item for graph in graphs for item in graph.initializers.items())
    return {name: value.const_value for name, value in named if name in variables and value.const_value is not None}


def _ranked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The checker has no notion of unknown rank at the interface: there a rank is made up."""
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.shape.SetInParent()
    return proto
