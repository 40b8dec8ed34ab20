"""A model version in memory: its signatures, its loaded graphs, and the count of requests that use it.

Loading proves it: the backend must reproduce TensorFlow's golden answers on this machine before the version may serve.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from protos.segue import package_pb2
from protos.serving import metadata_pb2
from server.arrays import Array
from server.backends.interface import Backend
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher, Cancelled, never_cancelled
from server.engines.choices import SteppedIn, Switched
from server.engines.engine import Engine, load_engine
from server.engines.ensemble import Ensemble, MakePolicy
from server.engines.proof import Proof, may_be_joined
from server.errors import SignatureNotFound, TooLate, UnreadableText
from server.repository.package import Package
from server.run_times import RunTimes
from server.selection.interface import Failure
from server.signatures import DEFAULT_SIGNATURE, ServedSignature

logger = logging.getLogger("server")


class Servable:
    """One loaded version. Requests hold a lease while they use it; closing waits for the leases to end."""

    def __init__(
        self,
        package: Package,
        primary: Engine,
        batching: BatchingParameters | None = None,
        make_policy: MakePolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a servable.

        Args:
            package: What it serves.
            primary: The engine that is there from the start.
            batching: How to join requests to signatures that may be batched; None joins none.
            make_policy: Makes what chooses between engines; None where there will be one.
            clock: Seconds, for deadlines.
        """
        self.name = package.name
        self.version = package.version
        self.package = package
        self.batching = batching
        sizes = batching.buckets if batching else ()
        self.ensemble = Ensemble(package.manifest, primary, sizes, make_policy, partial(_tell, self.name, self.version))
        self.signatures = {s.name: ServedSignature(s) for s in package.manifest.signatures}
        self.signature_map = _signature_map(package.manifest)
        self._lanes = self.ensemble.lanes
        self._batchers = {
            signature.name: Batcher(self._lanes[signature.name].run, batching)
            for signature in package.manifest.signatures
            if batching is not None and may_be_joined(signature)
        }
        self._run_times = {name: RunTimes() for name in self.signatures}
        self._clock = clock
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

    @property
    def backend_name(self) -> str:
        """The backend that is there from the start."""
        return self.ensemble.primary.backend

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """Its proofs."""
        return self.ensemble.primary.proofs

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
            TooLate: It is not joined with others, and such runs took longer of late than its deadline leaves.
            SegueError: See LoadedGraph.run and Batcher.submit.
        """
        batcher = self._batchers.get(signature.name)
        try:
            if batcher is not None and len({array.shape[0] for array in feeds.values()}) == 1:
                return batcher.submit(feeds, outputs, deadline, cancelled)
            return self._run_alone(signature.name, feeds, outputs, deadline)
        except UnreadableText as error:
            raise UnreadableText(signature.alias_of(error.name), error.runtime) from error

    def _run_alone(
        self, signature: str, feeds: Mapping[str, Array], outputs: Sequence[str], deadline: float
    ) -> list[Array]:
        """Run one request, unless it would end too late."""
        times = self._run_times[signature]
        size = sum(array.nbytes for array in feeds.values())
        begin, expected = self._clock(), times.expected(size)
        if expected and begin + expected > deadline and times.is_vain(size):
            raise TooLate(self.name, 0, expected, deadline - begin)
        answers = self._lanes[signature].run(feeds, outputs)
        times.observe(size, self._clock() - begin)
        return answers

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
            return self._lanes[signature.name].run(feeds, outputs)
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
        self.ensemble.ended.set()  # what goes on beside requests is not to be waited for
        with self._condition:
            self._closing = True
            return self._condition.wait_for(lambda: self._leases == 0, timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Free the engines when the leases have ended, at the latest after `timeout` seconds; returns `drained`."""
        drained = self.drained(timeout)
        self.ensemble.close()
        return drained


def _tell(model: str, version: int, signature: str, news: Switched | SteppedIn) -> None:
    where = model, version, signature, news.bucket
    if isinstance(news, Switched):
        logger.info(
            "model %s version %d signature %s, batches of up to %d: %s answers instead of %s: %s",
            *(*where, news.after, news.before, news.reason or news.kind),
        )
    else:
        logger.log(
            logging.INFO if news.kind == Failure.LEFT.value else logging.WARNING,
            "model %s version %d signature %s, batches of up to %d: %s stepped in for %s: %s (told once a minute)",
            *(*where, news.after, news.backend, news.reason or news.kind),
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A servable and what loading it took, in seconds."""

    servable: Servable
    seconds: float


def load_servable(
    package: Package,
    backend: Backend,
    batching: BatchingParameters | None = None,
    make_policy: MakePolicy | None = None,
) -> Loaded:
    """Load a package in one backend, and prove each signature against its golden answers.

    Args:
        package: What to load.
        backend: What to load it with; others may join later.
        batching: How to join requests to signatures that may be batched; None joins none.
        make_policy: See Servable.

    Raises:
        GraphNotLoadable: the backend refuses a file.
        ProofFailed: an answer differs from TensorFlow's by more than the manifest's tolerance.
        DamagedPackage: the manifest contradicts the files.
    """
    engine = load_engine(package, backend, batching.buckets if batching else ())
    try:
        return Loaded(Servable(package, engine, batching, make_policy), engine.seconds)
    except BaseException:
        engine.close()
        raise


def _signature_map(manifest: package_pb2.ModelPackage) -> metadata_pb2.SignatureDefMap:
    result = metadata_pb2.SignatureDefMap()
    for signature in manifest.signatures:
        result.signature_def[signature.name].CopyFrom(signature.signature_def)
    return result
