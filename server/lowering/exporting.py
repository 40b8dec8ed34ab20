"""From a module to one torch.export graph with open sizes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic

from server.lowering.dtypes import TORCH_DTYPES
from server.lowering.module import Port

# Sizes to trace with: of first axes, and of others. Different axes get different ones, so that none is taken for
# another. The second row is for axes that a network shrinks, such as images and time, the third for reshapes.
_SIZES: Final = (
    ((5, 7, 11, 13), (6, 9, 10, 14, 15, 22)),
    ((5, 7, 11, 13), (96, 112, 80, 144, 160, 176)),
    ((8, 16, 24, 40), (96, 192, 288, 384)),
)


class NotExportable(Exception):
    """torch cannot make one graph of the module; the text says why."""


@dataclass(slots=True)
class Exported:
    """A graph with open sizes.

    Attributes:
        graph: Takes and returns what the module does.
        inputs: What it was traced with.
        guards: What torch assumed of sizes, as Python expressions over `L['NAME'][input].size()[axis]`.
        shapes: Of the inputs: a size, or what stands for it, for each axis.
        ranges: Symbol -> the least and the greatest size (None: none) that the graph holds for.
        output_ranks: Of the outputs.
        output_dtypes: Of the outputs.
    """

    graph: fx.GraphModule
    inputs: tuple[torch.Tensor, ...]
    guards: tuple[str, ...]
    shapes: tuple[tuple[int | str, ...], ...]
    ranges: dict[str, tuple[int, int | None]]
    output_ranks: tuple[int, ...] = ()
    output_dtypes: tuple[torch.dtype, ...] = field(default=())


def export(module: nn.Module, ports: Sequence[Port], device: str) -> Exported:
    """Trace a module.

    An axis without a size in the ONNX file stays open; axes of equal names are of equal sizes. Sizes 0 and 1 are
    allowed, unless torch cannot follow: then the ranges say so.

    Args:
        module: Takes tensors as positional arguments and returns a tuple.
        ports: What it takes.
        device: Where it is.

    Raises:
        NotExportable: it cannot be traced with any of the sizes tried.
    """
    if unknown := [port.name for port in ports if port.shape is None or port.dtype not in TORCH_DTYPES]:
        raise NotExportable(f"input {unknown[0]!r} has no rank, or an element type that torch lacks")
    reasons = []
    for sizes, oblivious in itertools.product(_attempts(ports), (True, False)):
        inputs = tuple(_example(port, shape, device) for port, shape in zip(ports, sizes, strict=True))
        dynamic = tuple(
            {axis: Dim.DYNAMIC for axis, size in enumerate(port.shape or ()) if not isinstance(size, int)}
            for port in ports
        )
        try:
            with symbolic.patch(backed_size_oblivious=oblivious):  # type: ignore[attr-defined] # put there when torch loads
                program = torch.export.export(module, inputs, dynamic_shapes=(dynamic,))
        except Exception as error:  # noqa: BLE001 - tracing runs any operator, each fails in its own way
            reasons.append(f"{type(error).__name__}: {error}".partition("\n\n")[0])
        else:
            return _exported(program, inputs)
    raise NotExportable(f"torch.export cannot trace it: {reasons[0]}")


def _example(port: Port, shape: Sequence[int], device: str) -> torch.Tensor:
    # Ones: an index or a length that exists in most tables.
    return torch.ones(tuple(shape), dtype=TORCH_DTYPES[port.dtype], device=device)


def _attempts(ports: Sequence[Port]) -> Iterator[list[tuple[int, ...]]]:
    """Sizes for all inputs, the most general first."""
    seen = set()
    for batch, rest in _SIZES:
        for key in (_by_name, _by_axis):
            sizes = _sized(ports, batch, rest, key)
            if tuple(sizes) not in seen:
                seen.add(tuple(sizes))
                yield sizes


def _by_name(place: int, axis: int, name: int | str | None) -> object:
    """Each unnamed axis is of a size of its own."""
    return name or (place, axis)


def _by_axis(place: int, axis: int, name: int | str | None) -> object:  # noqa: ARG001 - one form for both
    """All open axes of one position are of one size: what an exporter names differently may well be the same."""
    return axis


def _sized(
    ports: Sequence[Port],
    first: Sequence[int],
    rest: Sequence[int],
    key: Callable[[int, int, int | str | None], object],
) -> list[tuple[int, ...]]:
    given: dict[object, int] = {}
    batch, others = itertools.cycle(first), itertools.cycle(rest)
    sizes = []
    for place, port in enumerate(ports):
        shape = []
        for axis, size in enumerate(port.shape or ()):
            known = size if isinstance(size, int) else given.get(key(place, axis, size))
            if known is None:
                known = given[key(place, axis, size)] = next(batch if axis == 0 else others)
            shape.append(known)
        sizes.append(tuple(shape))
    return sizes


def _exported(program: ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> Exported:
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    values = [nodes[name].meta["val"] for name in signature.user_inputs if isinstance(name, str)]
    outputs = [nodes[name].meta["val"] for name in signature.user_outputs if isinstance(name, str)]
    if len(outputs) != len(signature.user_outputs):
        raise NotExportable("an output is a number that does not depend on the inputs")
    graph = program.module()
    if not isinstance(graph, fx.GraphModule):
        raise NotExportable("torch.export gave no graph")
    return Exported(
        graph=graph,
        inputs=inputs,
        guards=tuple(program._guards_code),  # noqa: SLF001 - torch has no other list of what it assumed
        shapes=tuple(tuple(_size(size) for size in value.shape) for value in values),
        ranges={str(symbol): _bounds(bounds) for symbol, bounds in program.range_constraints.items()},
        output_ranks=tuple(value.dim() for value in outputs),
        output_dtypes=tuple(value.dtype for value in outputs),
    )


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _bounds(bounds: Any) -> tuple[int, int | None]:
    # "No bound" is an infinity, or the greatest number that fits something of torch's own.
    return max(int(bounds.lower), 0), int(bounds.upper) if bool(bounds.upper < 2**31 - 2) else None
