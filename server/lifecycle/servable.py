"""A model version in memory: its signatures, its loaded graphs, and the count of requests that use it.

Loading proves it: the backend must reproduce TensorFlow's golden answers on this machine before the version may serve.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from protos.segue import package_pb2
from protos.serving import metadata_pb2
from server.arrays import Array
from server.backends.interface import Backend, GraphSpec, LoadedGraph, TensorPort
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher, Cancelled, never_cancelled
from server.errors import DamagedPackage, ProofFailed, SignatureNotFound, UnreadableText
from server.parity import Difference, Tolerance, compare
from server.repository.package import Package
from server.signatures import DEFAULT_SIGNATURE, ServedSignature


@dataclass(frozen=True, slots=True)
class Proof:
    """How far the backend is from TensorFlow on the golden inputs of one output, and what it may be."""

    signature: str
    output: str
    difference: Difference
    tolerance: Tolerance


class Servable:
    """One loaded version. Requests hold a lease while they use it; closing waits for the leases to end."""

    def __init__(
        self,
        package: Package,
        backend_name: str,
        graphs: Mapping[str, LoadedGraph],
        proofs: Sequence[Proof] = (),
        batching: BatchingParameters | None = None,
    ) -> None:
        self.name = package.name
        self.version = package.version
        self.backend_name = backend_name
        self.proofs = tuple(proofs)
        self.signatures = {s.name: ServedSignature(s) for s in package.manifest.signatures}
        self.signature_map = _signature_map(package.manifest)
        self._graphs = graphs
        self._batchers = {
            signature.name: Batcher(graphs[signature.onnx_file].run, batching)
            for signature in package.manifest.signatures
            if batching is not None and _may_be_joined(signature)
        }
        self._condition = threading.Condition()
        self._leases = 0
        self._closing = False

    def signature(self, name: str) -> ServedSignature:
        """The signature of that name, "serving_default" if the name is empty.

        Raises:
            SignatureNotFound: with TensorFlow Serving's text.
        """
        wanted = name or DEFAULT_SIGNATURE
        try:
            return self.signatures[wanted]
        except KeyError:
            msg = f'Serving signature key "{wanted}" not found.'
            raise SignatureNotFound(msg) from None

    def rows_together(self, signature: ServedSignature) -> int:
        """Rows of the signature's requests that one run may answer; 1 if they are not joined."""
        batcher = self._batchers.get(signature.name)
        return batcher.largest if batcher is not None else 1

    def run(
        self,
        signature: ServedSignature,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        deadline: float = float("inf"),
        cancelled: Cancelled = never_cancelled,
    ) -> list[Array]:
        """Run the signature's graph, joined with other requests if it was proved that rows may be joined.

        Args:
            signature: Which.
            feeds: See LoadedGraph.run.
            outputs: See LoadedGraph.run.
            deadline: By time.monotonic(): later the request need not be run any more.
            cancelled: Whether nobody waits for the answer any more; see Batcher.submit.

        Raises:
            SegueError: See LoadedGraph.run and Batcher.submit.
        """
        batcher = self._batchers.get(signature.name)
        try:
            if batcher is not None and len({array.shape[0] for array in feeds.values()}) == 1:
                return batcher.submit(feeds, outputs, deadline, cancelled)
            return self._graphs[signature.onnx_file].run(feeds, outputs)
        except UnreadableText as error:
            raise UnreadableText(signature.alias_of(error.name), error.runtime) from error

    def run_now(
        self, signature: ServedSignature, feeds: Mapping[str, Array], outputs: Sequence[str]
    ) -> list[Array] | None:
        """Run the signature's graph if that need not wait for others; else None, at once.

        Raises:
            SegueError: See LoadedGraph.run.
        """
        batcher = self._batchers.get(signature.name)
        try:
            if batcher is not None:
                one_size = len({array.shape[0] for array in feeds.values()}) == 1
                return batcher.try_now(feeds, outputs) if one_size else None
            return self._graphs[signature.onnx_file].run(feeds, outputs)
        except UnreadableText as error:
            raise UnreadableText(signature.alias_of(error.name), error.runtime) from error

    @property
    def batchers(self) -> Mapping[str, Batcher]:
        """The queues of the signatures whose requests are joined, by signature."""
        return self._batchers

    def lease(self) -> bool:
        """Take a lease, unless the version is closing. Each True must be followed by one `release`."""
        with self._condition:
            if self._closing:
                return False
            self._leases += 1
            return True

    def release(self) -> None:
        """Give a lease back."""
        with self._condition:
            self._leases -= 1
            if self._leases == 0:
                self._condition.notify_all()

    @contextmanager
    def leased(self) -> Iterator["Servable"]:
        """Release at the end a lease that was taken before."""
        try:
            yield self
        finally:
            self.release()

    def drained(self, timeout: float | None = None) -> bool:
        """Refuse new leases; True if those given have ended within `timeout` seconds."""
        with self._condition:
            self._closing = True
            return self._condition.wait_for(lambda: self._leases == 0, timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Free the graphs when the leases have ended, at the latest after `timeout` seconds; returns `drained`."""
        drained = self.drained(timeout)
        for graph in self._graphs.values():
            graph.close()
        return drained


@dataclass(frozen=True, slots=True)
class Loaded:
    """A servable and what loading it took, in seconds."""

    servable: Servable
    seconds: float


def load_servable(package: Package, backend: Backend, batching: BatchingParameters | None = None) -> Loaded:
    """Load every graph of a package and prove each signature against its golden answers.

    Args:
        package: What to load.
        backend: What to load it with.
        batching: How to join requests to signatures that may be batched; None joins none.

    Raises:
        GraphNotLoadable: the backend refuses a file.
        ProofFailed: an answer differs from TensorFlow's by more than the manifest's tolerance.
        DamagedPackage: the manifest contradicts the files.
    """
    begin = time.perf_counter()
    graphs: dict[str, LoadedGraph] = {}
    try:
        for spec in _graph_specs(package):
            graphs[spec.path.name] = backend.load(spec)
        sizes = batching.buckets if batching else ()
        servable = Servable(package, backend.name, graphs, prove(package, backend.name, graphs, sizes), batching)
    except BaseException:
        for graph in graphs.values():
            graph.close()
        raise
    return Loaded(servable, time.perf_counter() - begin)


def prove(
    package: Package, backend_name: str, graphs: Mapping[str, LoadedGraph], sizes: Sequence[int] = ()
) -> list[Proof]:
    """Run every golden case and compare each output with TensorFlow's answer.

    Args:
        package: The golden cases and what outputs may differ by.
        backend_name: For messages.
        graphs: The loaded graphs by file.
        sizes: Of batches that will be run: where rows may be joined, golden rows are repeated to batches of these
            sizes, which proves each and makes the backend ready for it.

    Raises:
        ProofFailed: naming the first output that differs, and by how much.
        DamagedPackage: a golden array is missing.
    """
    arrays = package.golden_arrays()
    proofs = []
    try:
        for signature in package.manifest.signatures:
            cases = list(_cases(signature, arrays, sizes))
            proofs += _prove_signature(signature, graphs[signature.onnx_file], cases)
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


# Of the inputs and outputs of one batch that is tried at loading; larger ones are left to the requests that bring them.
_MOST_PROVED_BYTES = 256 << 20

_Case = tuple[Mapping[str, Array], Mapping[str, Array]]


def _cases(signature: package_pb2.Signature, arrays: Mapping[str, Array], sizes: Sequence[int]) -> Iterator[_Case]:
    """Inputs and TensorFlow's answers by alias: the golden cases, and the largest cut or repeated to the sizes."""
    for case in signature.golden:
        yield ({a: arrays[k] for a, k in case.inputs.items()}, {a: arrays[k] for a, k in case.outputs.items()})
    if not _may_be_joined(signature):
        return
    largest = max(signature.golden, key=lambda case: case.batch)
    keys = {*largest.inputs.values(), *largest.outputs.values()}
    row_bytes = sum(arrays[key].nbytes for key in keys) // largest.batch
    for size in sorted(set(sizes) - {case.batch for case in signature.golden}):
        if size * row_bytes <= _MOST_PROVED_BYTES:
            index = np.arange(size) % largest.batch
            yield (
                {alias: arrays[key][index] for alias, key in largest.inputs.items()},
                {alias: arrays[key][index] for alias, key in largest.outputs.items()},
            )


def _may_be_joined(signature: package_pb2.Signature) -> bool:
    """True if rows were proved to keep apart; that golden rows were only seen to is not enough."""
    return signature.batching.batchable and signature.batching.derived


def _prove_signature(signature: package_pb2.Signature, graph: LoadedGraph, cases: Sequence[_Case]) -> list[Proof]:
    served = ServedSignature(signature)
    differences = dict.fromkeys(served.outputs, Difference())
    tolerances = {b.alias: Tolerance(b.tolerance.absolute, b.tolerance.relative) for b in signature.outputs}
    for inputs, expected in cases:
        answers = graph.run(served.bind(inputs), list(served.outputs.values()))
        for alias, answer in zip(served.outputs, answers, strict=True):
            measured = compare(expected[alias], answer, tolerances[alias])
            differences[alias] = differences[alias].merged(measured)
    return [Proof(signature.name, alias, differences[alias], tolerances[alias]) for alias in served.outputs]


def _graph_specs(package: Package) -> list[GraphSpec]:
    """One per ONNX file, with the ports of all signatures that it answers."""
    listed = {file.path: file.sha256 for file in package.manifest.files}
    ports: dict[str, tuple[set[TensorPort], set[TensorPort]]] = {}
    for signature in package.manifest.signatures:
        if signature.onnx_file not in listed:
            raise DamagedPackage(f"{package.path}: the manifest does not list {signature.onnx_file!r}")
        inputs, outputs = ServedSignature(signature).ports()
        all_inputs, all_outputs = ports.setdefault(signature.onnx_file, (set(), set()))
        all_inputs.update(inputs)
        all_outputs.update(outputs)
    return [GraphSpec(package.path / file, tuple(i), tuple(o), listed[file]) for file, (i, o) in ports.items()]


def _signature_map(manifest: package_pb2.ModelPackage) -> metadata_pb2.SignatureDefMap:
    result = metadata_pb2.SignatureDefMap()
    for signature in manifest.signatures:
        result.signature_def[signature.name].CopyFrom(signature.signature_def)
    return result
