"""The exported graphs made cleaner (`graph`) before they become a package, with account of every variable."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from converter.exported import ExportResult, MappedInitializer
from converter.graph.edit import Rewrite, Variables
from converter.graph.pipeline import REWRITES, rewrite
from converter.worker.graphs import subgraphs

EVERYTHING: Final = "everything"  # in place of a rewrite's name, where a graph stayed as it was exported


@dataclass(frozen=True, slots=True)
class Simplified:
    """What was done to one signature's graph.

    Attributes:
        opset: Of the graph as it is now.
        nodes_before: Nodes as exported, without those of graphs inside nodes.
        nodes_after: And now.
        applied: How often each rewrite applied, by name.
        left_out: Why a rewrite was not used, by name.
    """

    opset: int
    nodes_before: int
    nodes_after: int
    applied: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def simplify(
    export: ExportResult, *, without: Mapping[str, str], rewrites: Sequence[Rewrite] = REWRITES
) -> tuple[ExportResult, list[Simplified]]:
    """Rewrite the graph of every signature.

    The new graphs lie beside the exported ones, which stay, and share their data files.

    Args:
        export: What the worker made.
        without: Rewrites to leave out, and why.
        rewrites: All there are.

    Returns:
        The export with the new graphs and an accordingly changed map of initializers, and what was done to each.
    """
    paths: list[Path] = []
    reports: list[Simplified] = []
    initializers: list[MappedInitializer] = []
    for index, signature in enumerate(export.signatures):
        mapped = [entry for entry in export.initializers if entry.onnx == index]
        path, report = _simplify_one(signature.onnx, _variables(mapped), without, rewrites)
        paths.append(path)
        reports.append(report)
        initializers.extend(_remapped(path, mapped))
    signatures = tuple(
        dataclasses.replace(signature, onnx=path) for signature, path in zip(export.signatures, paths, strict=True)
    )
    return dataclasses.replace(export, signatures=signatures, initializers=tuple(initializers)), reports


def _variables(mapped: Collection[MappedInitializer]) -> Variables:
    return {
        entry.initializer: frozenset(f"{variable.name} {list(variable.shape)}" for variable in entry.variables)
        for entry in mapped
        if entry.variables
    }


def _simplify_one(
    path: Path, variables: Variables, without: Mapping[str, str], rewrites: Sequence[Rewrite]
) -> tuple[Path, Simplified]:
    model = ir.load(path)
    before = len(model.graph)
    if EVERYTHING in without:
        return path, Simplified(model.opset_imports[""], before, before, left_out=dict(without))
    result = rewrite(model, variables, without=without, rewrites=rewrites)
    left_out = dict(without) | result.refused
    new = path
    if result.applied:
        new = path.with_suffix(".simple.onnx")
        ir.save(result.model, new)
    opset = result.model.opset_imports[""]
    return new, Simplified(opset, before, len(result.model.graph), result.applied, left_out)


def _remapped(path: Path, mapped: Collection[MappedInitializer]) -> list[MappedInitializer]:
    """The entries of initializers that are still there; whether they are reshaped is seen anew."""
    shapes = {name: shape for graph in _graphs(path) for name, shape in graph.items()}
    entries = []
    for entry in mapped:
        if entry.initializer in shapes and entry.variables:
            shape = entry.variables[0].shape
            moved = tuple(shape[axis] for axis in entry.transposition) if entry.transposition else shape
            entries.append(dataclasses.replace(entry, reshaped=moved != shapes[entry.initializer]))
    return entries


def _graphs(path: Path) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes of initializers by name, of a model's graph and of those inside nodes."""
    for graph in subgraphs(onnx.load(path, load_external_data=False).graph):
        yield {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
