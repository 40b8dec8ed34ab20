"""Turning a finished export into a package folder: its files and its manifest. Publishing is the repository's part."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from converter.exported import ExportedSignature, ExportResult, VariableInfo
from converter.simplify import Simplified
from converter.weights import store_graphs
from protos.segue import package_pb2
from protos.tensorflow import signature_pb2
from server.arrays import Array, save_arrays
from server.engines.proof import Proof
from server.parity import Tolerance, default_tolerance
from server.repository.names import BATCHING, GOLDEN, MANIFEST
from server.repository.package import SCHEMA_VERSION, file_digest

REPORT = "report.md"
# What decides the result of a conversion besides the source and the options.
_TOOLS = ("tensorflow", "tf2onnx", "keras", "tf-keras", "onnx", "onnx-ir", "numpy", "segue-serving")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a package is made from: the same provenance gives the same package, so that conversion happens once.

    Attributes:
        kind: "saved_model" or "keras".
        digest: SHA-256 of the source, in hexadecimal.
        label: The last component of the source's path, for people.
        size: Bytes of the source.
        options: Options that can change the result, by name.
        tools: Versions of the tools that can change the result, by name.
    """

    kind: str
    digest: str
    label: str
    size: int
    options: Mapping[str, str]
    tools: Mapping[str, str]

    def made(self, manifest: package_pb2.ModelPackage) -> bool:
        """True if a package with this manifest is what converting again would give."""
        return (
            manifest.schema_version == SCHEMA_VERSION
            and (manifest.source.kind, manifest.source.digest) == (self.kind, self.digest)
            and dict(manifest.options) == dict(self.options)
            and dict(manifest.tools) == dict(self.tools)
        )


def conversion_tools() -> dict[str, str]:
    """Versions of the conversion's tools, found without importing any."""
    return {name: importlib.metadata.version(name) for name in _TOOLS}


def build(
    folder: Path,
    export: ExportResult,
    simplified: Sequence[Simplified],
    definitions: Mapping[str, signature_pb2.SignatureDef],
    provenance: Provenance,
    *,
    tolerance: Tolerance | None,
) -> package_pb2.ModelPackage:
    """Write the graphs and golden arrays of a package, and describe them.

    Args:
        folder: The package's folder, empty.
        export: What the worker made, simplified or as it was.
        simplified: What was done to the graph of each signature.
        definitions: The source's SignatureDefs by signature name.
        provenance: Where it comes from.
        tolerance: What outputs may differ by; None decides by their golden values.

    Returns:
        The manifest, not yet written: files and proof are missing.
    """
    files = store_graphs([signature.onnx for signature in export.signatures], folder)
    manifest = package_pb2.ModelPackage(
        schema_version=SCHEMA_VERSION,
        tools=provenance.tools,
        options=provenance.options,
        opset=max(graph.opset for graph in simplified),
        source=package_pb2.Source(
            kind=provenance.kind, digest=provenance.digest, label=provenance.label, bytes=provenance.size
        ),
    )
    manifest.created.GetCurrentTime()
    if export.network != "denied":
        manifest.notes.append(f"network of the conversion process: {export.network}")
    arrays: dict[str, Array] = {}
    for number, (exported, file) in enumerate(zip(export.signatures, files, strict=True)):
        entry = _signature(exported, definitions[exported.name], str(number), arrays, tolerance)
        entry.onnx_file = file
        manifest.signatures.append(entry)
    save_arrays(folder / GOLDEN, arrays)
    _add_initializers(manifest, export, files)
    _add_rewritings(manifest, simplified, files)
    return manifest


def copy_batching_parameters(source: Path, folder: Path) -> None:
    """Let a SavedModel's own parameters for TensorFlow Serving travel with it, if it has any."""
    if (source / BATCHING).is_file():
        (folder / BATCHING).write_bytes((source / BATCHING).read_bytes())


def clear(folder: Path) -> None:
    """Remove what an earlier attempt left in the package's folder."""
    for path in folder.iterdir():
        path.unlink()


def write_manifest(folder: Path, manifest: package_pb2.ModelPackage) -> None:
    """List the folder's files with their digests, then write the manifest beside them.

    Files that are listed already are not read again: only the report is added once they are there.
    """
    known = {MANIFEST, *(file.path for file in manifest.files)}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            digest, size = file_digest(path)
            manifest.files.add(path=path.name, sha256=digest, bytes=size)
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True, indent=1)
    (folder / MANIFEST).write_text(text + "\n")


def record_proof(
    manifest: package_pb2.ModelPackage, proofs: Sequence[Proof], batching: Mapping[str, package_pb2.Batching]
) -> None:
    """Enter what the proof measured."""
    measured = {(proof.signature, proof.output): proof.difference for proof in proofs}
    for signature in manifest.signatures:
        signature.batching.CopyFrom(batching[signature.name])
        for binding in signature.outputs:
            difference = measured[signature.name, binding.alias]
            binding.proof.max_absolute = difference.max_absolute
            binding.proof.max_relative = difference.max_relative
            binding.proof.elements = difference.elements


def _signature(
    exported: ExportedSignature,
    definition: signature_pb2.SignatureDef,
    prefix: str,
    arrays: dict[str, Array],
    tolerance: Tolerance | None,
) -> package_pb2.Signature:
    entry = package_pb2.Signature(name=exported.name, signature_def=definition)
    for alias, onnx_name in sorted(exported.inputs.items()):
        entry.inputs.add(alias=alias, onnx_name=onnx_name or "")
    for alias, output_name in sorted(exported.outputs.items()):
        chosen = tolerance or default_tolerance([case.outputs[alias] for case in exported.cases])
        entry.outputs.add(
            alias=alias,
            onnx_name=output_name,
            tolerance=package_pb2.Tolerance(absolute=chosen.absolute, relative=chosen.relative),
        )
    for number, case in enumerate(exported.cases):
        entry.golden.add(
            origin=case.origin,
            batch=case.batch or 0,
            inputs=_store(arrays, f"{prefix}/{number}/inputs", case.inputs),
            outputs=_store(arrays, f"{prefix}/{number}/outputs", case.outputs),
        )
    return entry


def _store(arrays: dict[str, Array], prefix: str, values: Mapping[str, Array]) -> dict[str, str]:
    """Put arrays among those of golden.npz; returns their keys by alias."""
    keys = {alias: f"{prefix}/{alias}" for alias in values}
    arrays.update({keys[alias]: array for alias, array in values.items()})
    return keys


def _add_initializers(manifest: package_pb2.ModelPackage, export: ExportResult, files: Sequence[str]) -> None:
    seen = set()
    for mapped in export.initializers:
        key = (files[mapped.onnx], mapped.initializer)
        if not mapped.variables or key in seen:
            continue
        seen.add(key)
        manifest.initializers.add(
            onnx_file=files[mapped.onnx],
            name=mapped.initializer,
            variables=[_variable(variable) for variable in mapped.variables],
            transposition=mapped.transposition,
            reshaped=mapped.reshaped,
        )
    manifest.unmapped_variables.extend(_variable(variable) for variable in export.unmapped_variables)


def _add_rewritings(manifest: package_pb2.ModelPackage, simplified: Sequence[Simplified], files: Sequence[str]) -> None:
    for file, graph in dict(zip(files, simplified, strict=True)).items():
        manifest.rewritings.add(
            onnx_file=file,
            opset=graph.opset,
            nodes_before=graph.nodes_before,
            nodes_after=graph.nodes_after,
            applied=graph.applied,
            left_out=graph.left_out,
        )


def _variable(info: VariableInfo) -> package_pb2.Variable:
    return package_pb2.Variable(name=info.name, shape=info.shape, trainable=info.trainable)
