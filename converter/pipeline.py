"""Convert, prove, publish, deploy: the steps of `convert-and-deploy`, in their order.

What is shown to people is the command line's business: each step is announced to a listener.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from converter import deploy, package, report
from converter.client import CallFailed, ServerUnreachable, connected
from converter.errors import NotDeployed
from converter.export import ExportJob, Progress, SampleInputs, run_export
from converter.exported import ExportResult
from converter.graph.pipeline import VERSION as REWRITES_VERSION
from converter.inputs import inputs_digest, read_inputs
from converter.interruption import undisturbed
from converter.package import Provenance
from converter.simplify import Simplified
from converter.simplify_and_prove import simplify_and_prove
from converter.sources.keras import KerasSource
from converter.sources.recognise import Source, recognise
from converter.sources.saved_model import SavedModelSource, read_saved_model, select_signatures
from converter.sources.warmup import read_warmup_requests
from converter.worker.protocol import SourceKind
from protos.segue import package_pb2
from protos.tensorflow import signature_pb2
from server.errors import DamagedPackage
from server.parity import Tolerance
from server.repository.folder import Publication, Repository, writing
from server.repository.package import Package, open_package, read_manifest
from server.services.dial import Keys

OPSET = 18  # the newest that tf2onnx 1.17 writes


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        source: Path of the model.
        name: The model's name for clients.
        repository: Folder of packages to publish to.
        server: HOST:PORT of the server that should serve it.
        keys: How that server is called.
        server_required: Whether no answer from the server is an error.
        signatures: Names, or None for all.
        tags: Of the SavedModel's graph.
        inputs: An .npz of representative inputs, or None.
        tolerance: What outputs may differ by, or None for the default.
        seed: Of random inputs.
        wait_seconds: How long the server may take to make the version available.
        wall_seconds: How long the export may take.
    """

    source: Path
    name: str
    repository: Path
    server: str
    keys: Keys = field(default_factory=Keys)
    server_required: bool = False
    signatures: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ("serve",)
    inputs: Path | None = None
    tolerance: Tolerance | None = None
    seed: int = 0
    wait_seconds: float = 120.0
    wall_seconds: float = 3600.0


@dataclass(slots=True)
class Outcome:
    """What happened.

    Attributes:
        name: The model's.
        version: Its version in the repository.
        folder: The version's folder.
        manifest: The version's.
        reused: The version whose conversion was used again, if any.
        server: Where it should be served.
        foreign: Whether the server had a version of that name and number before this one was published.
        served: What the server answered; None without a server.
        seconds: By step.
        keys: How that server is called.
    """

    name: str
    version: int
    folder: Path
    manifest: package_pb2.ModelPackage
    reused: int | None
    server: str
    foreign: bool = False
    served: deploy.Served | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    keys: Keys = field(default_factory=Keys)


class Listener(Protocol):
    """Is told what is being done."""

    def step(self, name: str, message: str) -> None:
        """A step, or a part of it, begins."""
        ...

    def done(self, name: str, message: str, seconds: float) -> None:
        """A step has ended well."""
        ...

    def published(self, version: int, folder: Path) -> None:
        """From here on the version is there, whatever happens next."""
        ...


class _Steps:
    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, message: str) -> Iterator[list[str]]:
        """Announce a step; what the block appends to the list it gets is said at the end."""
        self.listener.step(name, message)
        begin = time.perf_counter()
        said: list[str] = []
        yield said
        self.seconds[name] = time.perf_counter() - begin
        self.listener.done(name, ", ".join(said), self.seconds[name])


def convert_and_deploy(request: Request, listener: Listener) -> Outcome:
    """Do everything. Until the publishing rename nothing in the repository has changed.

    Raises:
        ConversionError: One of `converter.errors`.
        PackageError: The repository cannot be used; see `server.errors`.
    """
    steps = _Steps(listener)
    with steps.step("read", f"reading {request.source}") as said:
        source = recognise(request.source, request.tags)
        said.append(_describe(source))
    with undisturbed(Repository(request.repository).publishing(request.name)) as publication:
        outcome = _publish(request, source, publication, steps)
    outcome.served = _deploy(request, outcome, steps)
    outcome.seconds = steps.seconds
    return outcome


def _publish(request: Request, source: Source, publication: Publication, steps: _Steps) -> Outcome:
    provenance = _provenance(request, source)
    repository = Repository(request.repository)
    found = _converted_before(repository.versions(request.name), request.name, provenance)
    if found is not None and found.version == max(repository.versions(request.name)):
        steps.listener.done("convert", f"unchanged since version {found.version}: nothing to convert", 0.0)
        return Outcome(
            request.name, found.version, found.path, found.manifest, found.version, request.server, keys=request.keys
        )
    if found is not None:
        steps.listener.done("convert", f"converted before, as version {found.version}", 0.0)
        manifest = found.manifest
        with writing(request.repository):
            shutil.copytree(found.path, publication.folder, dirs_exist_ok=True)
    else:
        manifest = _convert(request, source, provenance, publication.folder, steps)
    # A server that has the version before it is there does not watch this repository.
    with connected(request.server, request.keys) as client:
        following = max(repository.versions(request.name), default=0) + 1
        foreign = deploy.is_available(client, request.name, following)
    with steps.step("publish", f"publishing to {request.repository}") as said:
        try:
            version, folder = publication.commit()
        finally:
            if publication.published:
                steps.listener.published(*publication.published)
        said.append(str(folder))
    reused = found.version if found else None
    return Outcome(request.name, version, folder, manifest, reused, request.server, foreign, keys=request.keys)


def _convert(
    request: Request, source: Source, provenance: Provenance, folder: Path, steps: _Steps
) -> package_pb2.ModelPackage:
    """Export, build the package and prove it, all in the publication's private folder."""

    def on_progress(event: Progress) -> None:
        about = f" ({event.signature})" if event.signature else ""
        steps.listener.step("convert", event.message + about)

    job = ExportJob(
        source=source.path,
        kind=_kind(source),
        tags=request.tags,
        signatures=_signature_names(source, request.signatures),
        samples=_samples(request, source),
        seed=request.seed,
        opset=OPSET,
        wall_seconds=request.wall_seconds,
    )
    with ExitStack() as stack:
        with steps.step("convert", "starting TensorFlow in a process of its own") as said:
            export = stack.enter_context(run_export(job, on_progress=on_progress))
            definitions = _definitions(read_saved_model(export.saved_model) if export.saved_model else source)
            cases = sum(len(signature.cases) for signature in export.signatures)
            said.append(f"ONNX opset {OPSET}, {len(export.signatures)} signature(s), {cases} golden cases")

        def build(simple: ExportResult, simplified: Sequence[Simplified]) -> package_pb2.ModelPackage:
            with writing(request.repository):
                package.clear(folder)
                manifest = package.build(
                    folder, simple, simplified, definitions, provenance, tolerance=request.tolerance
                )
                package.copy_batching_parameters(source.path, folder)
                package.write_manifest(folder, manifest)
            return manifest

        with steps.step("prove", "simplifying the graphs, and comparing ONNX Runtime with TensorFlow") as said:
            manifest, proved = simplify_and_prove(request.name, folder, export, build)
            package.record_proof(manifest, proved.proofs, proved.batching)
            with writing(request.repository):
                (folder / package.REPORT).write_text(report.markdown(request.name, manifest))
                package.write_manifest(folder, manifest)
            worst = max((proof.difference.max_absolute for proof in proved.proofs), default=0.0)
            nodes = [sum(getattr(r, side) for r in manifest.rewritings) for side in ("nodes_before", "nodes_after")]
            opset = "" if manifest.opset == OPSET else f" of opset {manifest.opset}"
            said += [f"{nodes[0]:,} → {nodes[1]:,} nodes{opset}", f"largest difference {worst:.1e}"]
    return manifest


def _converted_before(versions: Mapping[int, Path], name: str, provenance: Provenance) -> Package | None:
    """The newest whole package that converting again would only repeat."""
    for version, folder in sorted(versions.items(), reverse=True):
        try:
            if provenance.made(read_manifest(folder)):
                return open_package(name, version, folder)
        except DamagedPackage:
            continue  # it is reported by the server; here it is just nothing to reuse
    return None


def _provenance(request: Request, source: Source) -> Provenance:
    options = {
        "opset": str(OPSET),
        "rewrites": str(REWRITES_VERSION),
        "seed": str(request.seed),
        "tags": ",".join(request.tags),
    }
    if request.signatures:
        options["signatures"] = ",".join(sorted(request.signatures))
    if request.inputs:
        options["inputs_sha256"] = inputs_digest(request.inputs)
    if request.tolerance:
        options["tolerance"] = f"{request.tolerance.absolute!r}+{request.tolerance.relative!r}"
    label = source.path.resolve().name
    return Provenance(_kind(source), source.digest, label, source.size, options, package.conversion_tools())


def _kind(source: Source) -> SourceKind:
    return "keras" if isinstance(source, KerasSource) else "saved_model"


def _signature_names(source: Source, wanted: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(source, SavedModelSource):
        return tuple(select_signatures(source, wanted))
    return tuple(wanted) if wanted else None


def _definitions(source: Source) -> Mapping[str, signature_pb2.SignatureDef]:
    assert isinstance(source, SavedModelSource)  # noqa: S101 - a Keras source was exported to one by the worker
    return source.signatures


def _samples(request: Request, source: Source) -> tuple[SampleInputs, ...]:
    """Representative inputs, the user's before the model's own; without any the worker draws random ones."""
    aliases = None
    if isinstance(source, SavedModelSource):
        chosen = select_signatures(source, request.signatures)
        aliases = {name: set(source.signatures[name].inputs) for name in chosen}
    if request.inputs:
        return read_inputs(request.inputs, aliases)
    if isinstance(source, SavedModelSource) and aliases is not None:
        return tuple(
            SampleInputs(sample.signature_name, "warm-up", sample.inputs)
            for sample in read_warmup_requests(source.path).requests
            if sample.signature_name in aliases
        )
    return ()


def _describe(source: Source) -> str:
    size = f"{source.size / 1e6:.1f} MB"
    if isinstance(source, SavedModelSource):
        return f"SavedModel, {size}, signatures: {', '.join(source.signatures) or 'none'}"
    return f"Keras model, {size}"


def _deploy(request: Request, outcome: Outcome, steps: _Steps) -> deploy.Served | None:
    with connected(request.server, request.keys) as client:
        if not deploy.answers(client, request.name, outcome.version):
            if request.server_required:
                raise NotDeployed(
                    f"Version {outcome.version} is published, but no server answers at {request.server}.",
                    f"Start one with `segue-server --repository {request.repository}`, or correct --server; for one "
                    "with TLS add --tls-ca.",
                )
            return None
        if outcome.foreign:
            raise NotDeployed(
                f"Version {outcome.version} is published, but {request.server} served a version {outcome.version} of "
                f"{request.name!r} before: it does not watch {request.repository}, or is another server altogether.",
                f"Start one with `segue-server --repository {request.repository} --port PORT`, and name it with "
                "--server.",
            )
        try:
            with steps.step("wait", f"waiting for {request.server} to serve version {outcome.version}") as said:
                deploy.wait_available(client, request.name, outcome.version, request.wait_seconds)
                said.append("AVAILABLE")
            with steps.step("ask", "sending the golden inputs through Predict") as said:
                arrays = Package(request.name, outcome.version, outcome.folder, outcome.manifest).golden_arrays()
                served = deploy.ask_golden(client, request.name, outcome.version, outcome.manifest, arrays)
                worst = max((d.max_absolute for d in served.differences.values()), default=0.0)
                said.append(f"{served.requests} answers, largest difference {worst:.1e}")
        except ServerUnreachable as error:
            raise NotDeployed(
                f"Version {outcome.version} is published, but {request.server} stopped answering: {error}",
                "Look at the server's log, and run the same command again once it is up (nothing is converted twice).",
            ) from error
        except CallFailed as error:
            raise NotDeployed(
                f"Version {outcome.version} is published, but what answers at {request.server} does not answer as a "
                f"model server does: {error}",
                "Give the address of a segue-server's gRPC port with --server, and its token with --token-file if it "
                "wants one.",
            ) from error
    return served
