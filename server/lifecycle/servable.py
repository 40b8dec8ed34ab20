"""A model version in memory: its signatures, its loaded graphs, and the count of requests that use it.

Loading proves it: the backend must reproduce TensorFlow's golden answers on this machine before the version may serve.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from protos.segue import package_pb2
from protos.serving import metadata_pb2
from server.arrays import Array
from server.backends.interface import Backend, GraphSpec, LoadedGraph, TensorPort
from server.errors import DamagedPackage, ProofFailed, SignatureNotFound
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
    ) -> None:
        self.name = package.name
        self.version = package.version
        self.backend_name = backend_name
        self.proofs = tuple(proofs)
        self.signatures = {s.name: ServedSignature(s) for s in package.manifest.signatures}
        self.signature_map = _signature_map(package.manifest)
        self._graphs = graphs
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

    def run(self, signature: ServedSignature, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the signature's graph; see LoadedGraph.run."""
        return self._graphs[signature.onnx_file].run(feeds, outputs)

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

    def close(self, timeout: float | None = None) -> None:
        """Refuse new leases, wait until those given have ended (at most `timeout` seconds), then free the graphs."""
        with self._condition:
            self._closing = True
            self._condition.wait_for(lambda: self._leases == 0, timeout)
        for graph in self._graphs.values():
            graph.close()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A servable and what loading it took, in seconds."""

    servable: Servable
    seconds: float


def load_servable(package: Package, backend: Backend) -> Loaded:
    """Load every graph of a package and prove each signature against its golden answers.

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
        servable = Servable(package, backend.name, graphs, prove(package, backend.name, graphs))
    except BaseException:
        for graph in graphs.values():
            graph.close()
        raise
    return Loaded(servable, time.perf_counter() - begin)


def prove(package: Package, backend_name: str, graphs: Mapping[str, LoadedGraph]) -> list[Proof]:
    """Run every golden case and compare each output with TensorFlow's answer.

    Raises:
        ProofFailed: naming the first output that differs, and by how much.
        DamagedPackage: a golden array is missing.
    """
    arrays = package.golden_arrays()
    proofs = []
    try:
        for signature in package.manifest.signatures:
            proofs += _prove_signature(signature, graphs[signature.onnx_file], arrays)
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


def _prove_signature(signature: package_pb2.Signature, graph: LoadedGraph, arrays: Mapping[str, Array]) -> list[Proof]:
    served = ServedSignature(signature)
    differences = dict.fromkeys(served.outputs, Difference())
    tolerances = {b.alias: Tolerance(b.tolerance.absolute, b.tolerance.relative) for b in signature.outputs}
    for case in signature.golden:
        feeds = served.bind({alias: arrays[key] for alias, key in case.inputs.items()})
        answers = graph.run(feeds, list(served.outputs.values()))
        for alias, answer in zip(served.outputs, answers, strict=True):
            measured = compare(arrays[case.outputs[alias]], answer, tolerances[alias])
            differences[alias] = differences[alias].merged(measured)
    return [Proof(signature.name, alias, differences[alias], tolerances[alias]) for alias in served.outputs]


def _graph_specs(package: Package) -> list[GraphSpec]:
    """One per ONNX file, with the ports of all signatures that it answers."""
    listed = {file.path for file in package.manifest.files}
    ports: dict[str, tuple[set[TensorPort], set[TensorPort]]] = {}
    for signature in package.manifest.signatures:
        if signature.onnx_file not in listed:
            raise DamagedPackage(f"{package.path}: the manifest does not list {signature.onnx_file!r}")
        inputs, outputs = ServedSignature(signature).ports()
        all_inputs, all_outputs = ports.setdefault(signature.onnx_file, (set(), set()))
        all_inputs.update(inputs)
        all_outputs.update(outputs)
    return [GraphSpec(package.path / file, tuple(i), tuple(o)) for file, (i, o) in ports.items()]


def _signature_map(manifest: package_pb2.ModelPackage) -> metadata_pb2.SignatureDefMap:
    result = metadata_pb2.SignatureDefMap()
    for signature in manifest.signatures:
        result.signature_def[signature.name].CopyFrom(signature.signature_def)
    return result
