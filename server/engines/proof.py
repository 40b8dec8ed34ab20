"""Does a loaded backend answer as TensorFlow did? Asked of every backend, on this machine, before it may serve."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from protos.segue import package_pb2
from server.arrays import Array
from server.backends.interface import Batch, LoadedGraph, Precision
from server.errors import DamagedPackage, LeftToOthers, ProofFailed
from server.parity import Difference, Tolerance, allowed, are_finite, compare
from server.repository.package import Package
from server.signatures import ServedSignature

# Of the inputs and outputs of one batch that is tried at loading; larger ones are left to the requests that bring them.
_MOST_PROVED_BYTES = 256 << 20

Case = tuple[Mapping[str, Array], Mapping[str, Array]]
"""Inputs and TensorFlow's answers, by alias."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How far the backend is from TensorFlow on the golden inputs of one output, and what it may be."""

    signature: str
    output: str
    difference: Difference
    tolerance: Tolerance
    is_finite: bool = True
    """Whether TensorFlow's golden answers hold neither NaN nor infinity."""


def prove(
    package: Package,
    backend_name: str,
    graphs: Mapping[str, LoadedGraph],
    sizes: Sequence[int] = (),
    precision: Precision = Precision.FP32,
    *,
    may_leave: bool = False,
) -> list[Proof]:
    """Run every golden case and compare each output with TensorFlow's answer.

    Args:
        package: The golden cases and what outputs may differ by.
        backend_name: For messages.
        graphs: The loaded graphs by file.
        sizes: Of batches that will be run: where rows may be joined, golden rows are repeated to batches of these
            sizes, which proves each and makes the backend ready for it.
        precision: What the backend computes in.
        may_leave: There are others to which it may leave some cases, as it will when it serves, but not all.

    Raises:
        ProofFailed: naming the first output that differs, and by how much.
        DamagedPackage: a golden array is missing.
        LeftToOthers: it leaves a case that it must not leave.
    """
    for signature in package.manifest.signatures:
        if not signature.golden or (may_be_joined(signature) and any(case.batch < 1 for case in signature.golden)):
            msg = f"{package.path}: nothing proves signature {signature.name!r}: no golden case, or one without rows"
            raise DamagedPackage(msg)
    arrays = package.golden_arrays()
    proofs = []
    try:
        for signature in package.manifest.signatures:
            cases = list(_cases(signature, arrays, sizes))
            graph = graphs[signature.onnx_file]
            proofs += _prove_signature(signature, graph, cases, precision, may_leave=may_leave)
    except KeyError as error:
        raise DamagedPackage(f"{package.path}: the manifest speaks of {error}, which is not there") from error
    for proof in proofs:
        if proof.difference.problem:
            msg = (
                f"The backend {backend_name} does not reproduce TensorFlow's answer for output {proof.output!r} of "
                f"signature {proof.signature!r}: {proof.difference.problem}"
            )
            raise ProofFailed(msg)
    return proofs


def may_be_joined(signature: package_pb2.Signature) -> bool:
    """True if rows were proved to keep apart; that golden rows were only seen to is not enough."""
    return signature.batching.batchable and signature.batching.derived


def golden_of(signature: package_pb2.Signature, arrays: Mapping[str, Array], size: int) -> Case | None:
    """A golden case of so many rows, made of others if there is none and rows keep apart; None if neither will do."""
    for case in signature.golden:
        if case.batch == size:
            return _case(case, arrays)
    return _repeated(signature, arrays, size) if may_be_joined(signature) else None


def batches_of(package: Package, signature: package_pb2.Signature, sizes: Sequence[int]) -> Iterator[Batch]:
    """What a signature will be asked: golden inputs of few rows first, repeated to the sizes where rows keep apart."""
    arrays, served = package.golden_arrays(), ServedSignature(signature)
    for size in sorted({case.batch for case in signature.golden} | set(sizes)):
        if (case := golden_of(signature, arrays, size)) is not None:
            yield served.bind(case[0]), list(served.outputs.values())


def _case(case: package_pb2.GoldenCase, arrays: Mapping[str, Array]) -> Case:
    return {a: arrays[k] for a, k in case.inputs.items()}, {a: arrays[k] for a, k in case.outputs.items()}


def _repeated(signature: package_pb2.Signature, arrays: Mapping[str, Array], size: int) -> Case | None:
    """The largest golden case cut or repeated to a batch of that size; None if that takes too much memory."""
    largest = max(signature.golden, key=lambda case: case.batch)
    keys = {*largest.inputs.values(), *largest.outputs.values()}
    row_bytes = sum(arrays[key].nbytes for key in keys) // largest.batch
    if size * row_bytes > _MOST_PROVED_BYTES:
        return None
    index = np.arange(size) % largest.batch
    return (
        {alias: arrays[key][index] for alias, key in largest.inputs.items()},
        {alias: arrays[key][index] for alias, key in largest.outputs.items()},
    )


def _cases(signature: package_pb2.Signature, arrays: Mapping[str, Array], sizes: Sequence[int]) -> Iterator[Case]:
    """The golden cases, and the largest cut or repeated to the sizes."""
    for case in signature.golden:
        yield _case(case, arrays)
    if may_be_joined(signature):
        for size in sorted(set(sizes) - {case.batch for case in signature.golden}):
            if filled := _repeated(signature, arrays, size):
                yield filled


def _prove_signature(
    signature: package_pb2.Signature,
    graph: LoadedGraph,
    cases: Sequence[Case],
    precision: Precision,
    *,
    may_leave: bool,
) -> list[Proof]:
    served = ServedSignature(signature)
    differences = dict.fromkeys(served.outputs, Difference())
    tolerances = {
        binding.alias: allowed(
            Tolerance(binding.tolerance.absolute, binding.tolerance.relative),
            precision,
            [expected[binding.alias] for _, expected in cases],
        )
        for binding in signature.outputs
    }
    left = 0
    for inputs, expected in cases:
        try:
            answers = graph.run(served.bind(inputs), list(served.outputs.values()))
        except LeftToOthers:
            left += 1
            if not may_leave or left == len(cases):
                raise
            continue
        for alias, answer in zip(served.outputs, answers, strict=True):
            measured = compare(expected[alias], answer, tolerances[alias])
            differences[alias] = differences[alias].merged(measured)
    return [
        Proof(
            *(signature.name, alias, differences[alias], tolerances[alias]),
            is_finite=are_finite(expected[alias] for _, expected in cases),
        )
        for alias in served.outputs
    ]
