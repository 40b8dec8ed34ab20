"""What ONNX Runtime's providers are tried on: a converted package, or ViT-Base with weights made of a seed."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import onnx

from benchmarks.gpu import graph
from server.arrays import Array
from server.backends.interface import GraphSpec, LoadedGraph, Precision
from server.backends.onnx_runtime import OnnxRuntimeBackend
from server.engines.proof import golden_of, prove
from server.errors import SegueError
from server.parity import allowed, compare, default_tolerance
from server.repository.package import open_package
from server.signatures import DEFAULT_SIGNATURE, ServedSignature

_PROVED_ROWS: Final = 4


class Subject(Protocol):
    """A model to run."""

    specs: Mapping[str, GraphSpec]
    """Its graphs by file."""
    served: str
    """The file that is timed."""
    outputs: Sequence[str]
    """Of that graph."""

    def feeds(self, batch: int) -> Mapping[str, Array] | None:
        """Inputs of so many rows by ONNX name; None if there are none of that size."""
        ...

    def proof(self, name: str, loaded: Mapping[str, LoadedGraph], precision: Precision) -> tuple[float, str]:
        """The largest difference, and why the backend may not serve; nothing if it may."""
        ...


class PackageSubject:
    """A package, proved by its golden answers as a server proves a backend."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Args:
            folder: REPOSITORY/NAME/VERSION.

        Raises:
            SegueError: it is damaged.
        """
        folder = folder.absolute()
        self._package = open_package(folder.parent.name, int(folder.name), folder)
        manifest = self._package.manifest
        self._signature = next((s for s in manifest.signatures if s.name == DEFAULT_SIGNATURE), manifest.signatures[0])
        self._bound = ServedSignature(self._signature)
        digests = {file.path: file.sha256 for file in manifest.files}
        self.served = self._signature.onnx_file
        self.outputs: Sequence[str] = list(self._bound.outputs.values())
        self.specs: Mapping[str, GraphSpec] = {
            one.onnx_file: GraphSpec(
                folder / one.onnx_file, *ServedSignature(one).ports(), digests.get(one.onnx_file, "")
            )
            for one in manifest.signatures
        }

    def feeds(self, batch: int) -> Mapping[str, Array] | None:
        """Golden rows; see Subject."""
        case = golden_of(self._signature, self._package.golden_arrays(), batch)
        return None if case is None else self._bound.bind(case[0])

    def proof(self, name: str, loaded: Mapping[str, LoadedGraph], precision: Precision) -> tuple[float, str]:
        """By the server's own rules; see Subject."""
        try:
            proofs = prove(self._package, name, loaded, (1, _PROVED_ROWS), precision)
        except SegueError as error:
            return float("nan"), error.message
        return max((one.difference.max_absolute for one in proofs), default=0.0), ""


class SeededVit:
    """ViT-Base with weights made of a seed, compared with ONNX Runtime on the processor."""

    def __init__(self, folder: Path, layers: int) -> None:
        """Write it.

        Args:
            folder: For the ONNX file.
            layers: Of its twelve.
        """
        bare = graph.load(layers)
        onnx.save(graph.filled(bare, graph.weights(bare)), folder / "vit.onnx")
        self.served = "vit.onnx"
        digest = hashlib.sha256((folder / self.served).read_bytes()).hexdigest()
        self.specs: Mapping[str, GraphSpec] = {self.served: graph.spec(folder / self.served, digest)}
        self.outputs: Sequence[str] = [port.name for port in graph.PORTS[1]]
        reference = OnnxRuntimeBackend("cpu").load(self.specs[self.served])
        (self._expected,) = reference.run(self.feeds(_PROVED_ROWS), self.outputs)
        reference.close()

    def feeds(self, batch: int) -> Mapping[str, Array]:
        """Random images; see Subject."""
        return {graph.PORTS[0][0].name: graph.images(batch)}

    def proof(self, name: str, loaded: Mapping[str, LoadedGraph], precision: Precision) -> tuple[float, str]:  # noqa: ARG002 - see Subject
        """As if the processor's answers were TensorFlow's; see Subject."""
        (answer,) = loaded[self.served].run(self.feeds(_PROVED_ROWS), self.outputs)
        limit = allowed(default_tolerance([self._expected]), precision, [self._expected])
        found = compare(self._expected, answer, limit)
        return found.max_absolute, found.problem
