"""An engine: one backend with one model version in it, proved."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.backends.interface import Backend, GraphSpec, LoadedGraph, Precision, TensorPort
from server.engines.elbow_room import leaving_cores
from server.engines.proof import Proof, prove
from server.errors import DamagedPackage
from server.repository.package import Package
from server.signatures import ServedSignature

_NEVER = threading.Event()


@dataclass(frozen=True, slots=True)
class Engine:
    """A backend that may answer for a version.

    Attributes:
        backend: The backend's name.
        precision: What it computes in.
        graphs: By ONNX file.
        proofs: How near to TensorFlow it was on this machine.
        seconds: What preparing, loading and proving took.
        prepared: What preparing took of it.
        proved: What proving took of it.
    """

    backend: str
    precision: Precision
    graphs: Mapping[str, LoadedGraph]
    proofs: tuple[Proof, ...] = ()
    seconds: float = 0.0
    prepared: float = 0.0
    proved: float = 0.0

    def close(self) -> None:
        """Free the graphs."""
        for graph in self.graphs.values():
            graph.close()


def load_engine(
    package: Package, backend: Backend, sizes: Sequence[int] = (), stop: threading.Event = _NEVER
) -> Engine:
    """Load every graph of a package and prove each signature against its golden answers.

    Args:
        package: What to load.
        backend: What to load it with.
        sizes: Of the batches that will be run.
        stop: Set when nobody wants it any more; preparing ends soon after.

    Raises:
        GraphNotLoadable: the backend refuses a file, or cannot make what it needs for it.
        ProofFailed: an answer differs from TensorFlow's by more than it may.
        DamagedPackage: the manifest contradicts the files.
    """
    begin = time.perf_counter()
    specs = graph_specs(package)
    for spec in specs:
        backend.prepare(spec, stop)
    prepared = time.perf_counter() - begin
    graphs: dict[str, LoadedGraph] = {}
    with leaving_cores():
        try:
            for spec in specs:
                graphs[spec.path.name] = backend.load(spec)
            loaded = time.perf_counter()
            proofs = prove(package, backend.name, graphs, sizes, backend.precision)
        except BaseException:
            for graph in graphs.values():
                graph.close()
            raise
    end = time.perf_counter()
    return Engine(backend.name, backend.precision, graphs, tuple(proofs), end - begin, prepared, end - loaded)


def graph_specs(package: Package) -> list[GraphSpec]:
    """One per ONNX file, with the ports of all signatures that it answers.

    Raises:
        DamagedPackage: the manifest does not list a file.
    """
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
