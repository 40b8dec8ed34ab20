"""Applying rewrites to exported signatures, and looking at what came out."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from converter.exported import ExportedSignature, ExportResult
from converter.graph.pipeline import REWRITES, Rewritten, rewrite
from converter.worker.graphs import subgraphs
from tests.converter.running import require_golden


def variables_of(export: ExportResult, index: int = 0) -> dict[str, frozenset[str]]:
    """The variables of one signature's graph, by initializer."""
    entries = [entry for entry in export.initializers if entry.onnx == index and entry.variables]
    return {entry.initializer: frozenset(variable.name for variable in entry.variables) for entry in entries}


def rewritten(
    export: ExportResult, folder: Path, *, only: Sequence[str] = (), without: Sequence[str] = (), index: int = 0
) -> Rewritten:
    """Rewrite one signature's graph, require TensorFlow's answers of it, and return it.

    Args:
        export: Of a model.
        folder: For the new graph.
        only: Names of the rewrites to apply; none for all.
        without: Names of rewrites to leave out.
        index: Of the signature.
    """
    signature = export.signatures[index]
    chosen = [one for one in REWRITES if (not only or one.name in only) and one.name not in without]
    result = rewrite(ir.load(signature.onnx), variables_of(export, index), rewrites=chosen)
    assert not result.refused
    require_golden(saved(result.model, signature, folder))
    return result


def saved(model: ir.Model, signature: ExportedSignature, folder: Path) -> ExportedSignature:
    """The signature with another graph."""
    path = folder / "rewritten.onnx"
    ir.save(model, path)
    return dataclasses.replace(signature, onnx=path)


def operators(model: ir.Model) -> Counter[str]:
    """How often each operator occurs in the main graph."""
    return Counter(node.op_type for node in model.graph)


def exported_operators(export: ExportResult, index: int = 0) -> Counter[str]:
    """The same of a graph as it was exported."""
    return Counter(node.op_type for node in onnx.load(export.signatures[index].onnx).graph.node)


def initializers(path: Path) -> dict[str, onnx.TensorProto]:
    """All initializers of a model by name."""
    return {tensor.name: tensor for graph in subgraphs(onnx.load(path).graph) for tensor in graph.initializer}
