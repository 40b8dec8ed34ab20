"""An engine: one backend with one model version in it, proved."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from server.backends.interface import Backend, GraphSpec, LoadedGraph, Precision, TensorPort, Tunable
from server.engines.elbow_room import in_own_thread, leaving_cores
from server.engines.proof import Proof, batches_of, prove
from server.errors import DamagedPackage, GraphNotLoadable
from server.repository.package import Package
from server.signatures import ServedSignature

logger = logging.getLogger("server")

_NEVER = threading.Event()


class Closeable(Protocol):
    """What holds memory until it is closed."""

    def close(self) -> None:
        """Free it."""
        ...


def close_all(things: Iterable[Closeable]) -> None:
    """Close each, whatever comes of the others; then raise the first error, the log has the rest."""
    first: Exception | None = None
    for thing in things:
        try:
            thing.close()
        except Exception as error:  # whatever a library says at the end, the others are to be freed, too
            if first is None:
                first = error
            else:
                logger.exception("freeing failed, as it did before for another part of the same version")
    try:
        if first is not None:
            raise first
    finally:
        del first  # its traceback refers to this frame


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
        """Free the graphs; see close_all."""
        close_all(self.graphs.values())


def _tell_nobody() -> None:
    """Nobody wants to know."""


def load_engine(
    package: Package,
    backend: Backend,
    sizes: Sequence[int] = (),
    stop: threading.Event = _NEVER,
    *,
    may_leave: bool = False,
    tell_loaded: Callable[[], None] = _tell_nobody,
) -> Engine:
    """Load every graph of a package and prove each signature against its golden answers.

    Args:
        package: What to load.
        backend: What to load it with.
        sizes: Of the batches that will be run.
        stop: Set when nobody wants it any more; it ends soon after.
        may_leave: See prove.
        tell_loaded: Called once all is loaded, before it is proved.

    Raises:
        GraphNotLoadable: the backend refuses a file, cannot make what it needs for it, or nobody wants it any more.
        ProofFailed: an answer differs from TensorFlow's by more than it may.
        LeftToOthers: it leaves golden inputs to other backends that it must not leave.
        DamagedPackage: the manifest contradicts the files.
    """
    begin = time.perf_counter()
    specs = graph_specs(package)
    for spec in specs:
        backend.prepare(spec, stop)
    prepared = time.perf_counter() - begin
    graphs, proofs, proving = in_own_thread(
        lambda: _load_and_prove(package, backend, specs, sizes, stop, may_leave=may_leave, tell_loaded=tell_loaded)
    )
    seconds = time.perf_counter() - begin
    return Engine(backend.name, backend.precision, graphs, tuple(proofs), seconds, prepared, proving)


def _load_and_prove(
    package: Package,
    backend: Backend,
    specs: Sequence[GraphSpec],
    sizes: Sequence[int],
    stop: threading.Event,
    *,
    may_leave: bool,
    tell_loaded: Callable[[], None],
) -> tuple[Mapping[str, LoadedGraph], list[Proof], float]:
    """The graphs, what was proved of them, and how many seconds that took."""
    graphs: dict[str, LoadedGraph] = {}
    proof = partial(prove, package, backend.name, graphs, sizes, backend.precision, may_leave=may_leave)
    try:
        with leaving_cores():
            for spec in specs:
                _go_on(stop)
                graphs[spec.path.name] = backend.load(spec)
            _go_on(stop)
            tell_loaded()
            begin = time.perf_counter()
            proofs = proof()
        if _tuned(package, graphs, sizes):
            with leaving_cores():
                proofs = proof()
    except BaseException:
        try:
            close_all(graphs.values())
        except Exception:  # why it is given up is the news
            logger.exception("freeing what %s had loaded failed", backend.name)
        raise
    return graphs, proofs, time.perf_counter() - begin


def _tuned(package: Package, graphs: Mapping[str, LoadedGraph], sizes: Sequence[int]) -> bool:
    """Let graphs that can choose how they run do so, on all cores: with fewer they would choose for those."""
    changed = False
    for signature in package.manifest.signatures:
        graph = graphs[signature.onnx_file]
        if isinstance(graph, Tunable):
            changed |= graph.tune(batches_of(package, signature, sizes))
    return changed


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise GraphNotLoadable("nobody wants it any more")


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
