"""One of our backends as a contender, by its name."""

import threading
from collections.abc import Mapping
from pathlib import Path

from benchmarks.backends.contender import Run
from server.arrays import Array
from server.backends.catalogue import AUTO, Offer, offered
from server.backends.interface import GraphSpec
from server.repository.package import open_package
from server.signatures import DEFAULT_SIGNATURE, ServedSignature


def offer(folder: Path) -> Offer:
    """Every backend of this machine's processor, in every precision."""
    return offered(AUTO, "fastest", device="cpu", threads=0, cache=folder / "cache")


def load(name: str, model: str, folder: Path) -> Run:
    """Load the package's default signature.

    Raises:
        GraphNotLoadable: the backend refuses it.
        LookupError: no backend of that name is here; says why.
    """
    found = offer(folder)
    backend = next((each for each in found.backends if each.name == name), None)
    if backend is None:
        raise LookupError(f"{name}: {found.absent.get(name, 'there is no backend of that name')}")
    package = open_package(model, 1, folder / "models" / model / "1")
    signature = ServedSignature(next(s for s in package.manifest.signatures if s.name == DEFAULT_SIGNATURE))
    digest = next(file.sha256 for file in package.manifest.files if file.path == signature.onnx_file)
    spec = GraphSpec(package.path / signature.onnx_file, *signature.ports(), digest)
    backend.prepare(spec, threading.Event())
    graph = backend.load(spec)

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        answers = graph.run(signature.bind(inputs), list(signature.outputs.values()))
        return dict(zip(signature.outputs, answers, strict=True))

    return run
