"""The gate that an export must pass: it is valid ONNX, it loads, it answers as TensorFlow did, and batches are honest.

The proof runs on the code that will serve: the same package reader, backend and comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from converter.errors import InvalidExport, OutputsDiffer
from converter.rows.proof import why_not_apart
from protos.segue import package_pb2
from server.arrays import Array
from server.backends.interface import Backend
from server.engines.proof import Proof
from server.errors import BackendError, ProofFailed, SegueError
from server.lifecycle.servable import Servable, load_servable
from server.parity import Tolerance, compare
from server.repository.package import Package
from server.signatures import ServedSignature


@dataclass(frozen=True, slots=True)
class Proved:
    """What the gate measured; the package itself is unchanged."""

    proofs: Sequence[Proof]
    batching: Mapping[str, package_pb2.Batching]


def check_graphs(folder: Path, files: Sequence[str]) -> None:
    """Have ONNX's own checker read every graph, types and shapes inferred.

    Raises:
        InvalidExport: naming the file and the checker's complaint.
    """
    for name in files:
        model = onnx.load(folder / name, load_external_data=False)
        ports = [*model.graph.input, *model.graph.output]
        unranked = [port for port in ports if not port.type.tensor_type.HasField("shape")]
        try:
            if unranked:
                # The checker has no notion of unknown rank at the interface: check the rest, with a rank made up.
                for port in unranked:
                    port.type.tensor_type.shape.dim.add()
                onnx.checker.check_model(model)
            else:
                onnx.checker.check_model(folder / name, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise InvalidExport(name, " ".join(str(error).split())) from error


def prove(package: Package, backend: Backend) -> Proved:
    """Load a package in the backend, compare every golden answer, and prove whether rows may be joined.

    Raises:
        InvalidExport: the backend does not load a graph.
        OutputsDiffer: an answer differs from TensorFlow's by more than its tolerance.
    """
    try:
        servable = load_servable(package, backend).servable
    except ProofFailed as error:
        raise OutputsDiffer(error.message) from error
    except BackendError as error:
        raise InvalidExport(backend.name, error.message) from error
    try:
        arrays = package.golden_arrays()
        files = {signature.onnx_file for signature in package.manifest.signatures}
        graphs = {file: onnx.load(package.path / file, load_external_data=False) for file in files}
        batching = {
            signature.name: prove_batching(servable, signature, graphs[signature.onnx_file], arrays)
            for signature in package.manifest.signatures
        }
        return Proved(servable.proofs, batching)
    finally:
        servable.close()


def prove_batching(
    servable: Servable, signature: package_pb2.Signature, graph: onnx.ModelProto, arrays: Mapping[str, Array]
) -> package_pb2.Batching:
    """Decide whether requests to a signature may be joined.

    It must follow from the graph that rows do not touch one another; and the golden batches, run row by row, must show
    it, since a runtime may do otherwise than the graph says.

    Args:
        servable: The package, loaded.
        signature: Which.
        graph: Its ONNX file, whose large initializers need not be loaded.
        arrays: The golden arrays.
    """
    obstacle = _static_obstacle(signature) or why_not_apart(graph)
    if obstacle:
        return package_pb2.Batching(batchable=False, reason=obstacle)
    served = servable.signature(signature.name)
    rows = 0
    for case in signature.golden:
        if case.batch < 2:
            continue
        problem = _rows_differ(servable, served, signature, case, arrays)
        if problem:
            return package_pb2.Batching(batchable=False, reason=problem)
        rows += case.batch
    if rows == 0:
        return package_pb2.Batching(batchable=False, reason="no golden batch of two or more rows was accepted")
    reason = (
        "the graph keeps rows apart whatever they hold, and "
        f"{rows} rows answered alone and in batches of up to {_largest(signature)} agree"
    )
    return package_pb2.Batching(batchable=True, reason=reason, derived=True)


def _largest(signature: package_pb2.Signature) -> int:
    return max(case.batch for case in signature.golden)


def _static_obstacle(signature: package_pb2.Signature) -> str:
    definition = signature.signature_def
    if not definition.inputs:
        return "the signature has no inputs"
    for side, infos in (("input", definition.inputs), ("output", definition.outputs)):
        for alias in sorted(infos):
            shape = infos[alias].tensor_shape
            if side == "input" and shape.unknown_rank:
                return f"input {alias!r} has unknown rank"
            if not shape.unknown_rank and (not shape.dim or shape.dim[0].size != -1):
                return f"the first dimension of {side} {alias!r} is not dynamic"
    return ""


def _rows_differ(
    servable: Servable,
    served: ServedSignature,
    signature: package_pb2.Signature,
    case: package_pb2.GoldenCase,
    arrays: Mapping[str, Array],
) -> str:
    inputs = {alias: arrays[key] for alias, key in case.inputs.items()}
    names = list(served.outputs.values())
    try:
        single = [
            servable.run(served, served.bind({alias: a[row : row + 1] for alias, a in inputs.items()}), names)
            for row in range(case.batch)
        ]
    except SegueError as error:
        return f"a row alone is refused: {error.message}"
    for position, binding in enumerate(signature.outputs):
        expected = arrays[case.outputs[binding.alias]]
        if expected.shape[:1] != (case.batch,):
            return f"output {binding.alias!r} has {expected.shape[:1]} rows for a batch of {case.batch}"
        parts = [answers[position] for answers in single]
        if any(part.shape != (1, *expected.shape[1:]) for part in parts):
            return f"the shape of output {binding.alias!r} depends on the batch"
        tolerance = Tolerance(binding.tolerance.absolute, binding.tolerance.relative)
        difference = compare(expected, np.concatenate(parts), tolerance)
        if difference.problem:
            return f"output {binding.alias!r} of a row depends on the rows beside it: {difference.problem}"
    return ""
