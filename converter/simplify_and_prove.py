"""Simplified graphs are published only if they pass the gate; a rewrite that fails it is left out.

The gate is `prove`: valid ONNX, loaded by the runtime, TensorFlow's answers within tolerance.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from converter.errors import InvalidExport, OutputsDiffer
from converter.exported import ExportResult
from converter.graph.edit import Rewrite
from converter.graph.pipeline import REWRITES
from converter.prove import Proved, check_graphs, prove
from converter.simplify import EVERYTHING, Simplified, simplify
from protos.segue import package_pb2
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.repository.package import Package

# Makes a package of graphs in the folder, in place of what is there.
Build = Callable[[ExportResult, Sequence[Simplified]], package_pb2.ModelPackage]


def simplify_and_prove(
    name: str, folder: Path, export: ExportResult, build: Build, rewrites: Sequence[Rewrite] = REWRITES
) -> tuple[package_pb2.ModelPackage, Proved]:
    """Build and prove a package with all rewrites, else with all but one, else of the graphs as exported.

    Args:
        name: The model's.
        folder: Of the package.
        export: What the worker made.
        build: Writes the package.
        rewrites: In their order.

    Raises:
        InvalidExport: A backend does not load the graphs as they were exported.
        OutputsDiffer: Nor answers as TensorFlow does.
    """
    tried: set[frozenset[str]] = set()
    applied: set[str] = set()
    complaint: InvalidExport | OutputsDiffer | None = None
    for without in _attempts(rewrites, applied):
        if without in tried:
            continue
        tried.add(without)
        reasons = dict.fromkeys(without, "" if complaint is None else " ".join(str(complaint).split()))
        simple, simplified = simplify(export, without=reasons, rewrites=rewrites)
        applied.update(*(graph.applied for graph in simplified))
        manifest = build(simple, simplified)
        try:
            return manifest, _proved(name, folder, manifest)
        except (InvalidExport, OutputsDiffer) as error:
            if not any(graph.applied for graph in simplified):
                raise
            complaint = complaint or error
    raise AssertionError  # the last attempt applies nothing, and raises


def _attempts(rewrites: Sequence[Rewrite], applied: set[str]) -> Iterator[frozenset[str]]:
    """What to leave out: nothing; then, of what was applied, the last first, for it changes most; then everything."""
    yield frozenset()
    for one in reversed(rewrites):
        if one.name in applied:
            yield frozenset({one.name})
    yield frozenset({EVERYTHING})


def _proved(name: str, folder: Path, manifest: package_pb2.ModelPackage) -> Proved:
    check_graphs(folder, sorted({signature.onnx_file for signature in manifest.signatures}))
    return prove(Package(name, 0, folder, manifest), OnnxRuntimeBackend("cpu"))
