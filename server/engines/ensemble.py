"""All engines of one model version: who takes part, who was tried and why it does not, and how each lane chooses."""

import enum
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from protos.segue import package_pb2
from server.engines.choices import SteppedIn, Switched
from server.engines.chooser import Chooser
from server.engines.engine import Engine, close_all
from server.engines.lane import Lane
from server.engines.proof import may_be_joined
from server.selection.states import State

MakePolicy = Callable[[Sequence[int]], Chooser]
"""Makes a policy for a signature with these buckets."""

Tell = Callable[[str, Switched | SteppedIn], None]
"""Is told of every switch and of some failures, and of the signature."""


def _tell_nobody(_signature: str, _news: Switched | SteppedIn) -> None:
    """Nobody wants to know."""


# For signatures whose requests are not joined: by how many rows a request has.
_BUCKETS = tuple(1 << exponent for exponent in range(11))


class Stage(enum.StrEnum):
    """How far a backend is with a version."""

    WAITING = "waiting"  # its turn comes
    PREPARING = "preparing"  # compiled and loaded beside requests
    PROVING = "proving"  # answers golden inputs
    ELIGIBLE = "eligible"  # proved on this machine: it may be chosen
    REJECTED = "rejected"  # it cannot, or its answers are not TensorFlow's


# How policies call what a backend is before it takes part, and what to say where there is no reason.
_STATES = {
    Stage.WAITING: (State.BUILDING, "waits for its turn"),
    Stage.PREPARING: (State.BUILDING, "is being compiled and loaded"),
    Stage.PROVING: (State.PROVING, "answers golden inputs"),
    Stage.REJECTED: (State.REJECTED, "no reason given"),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that might answer for a version: how far it is, and why not further."""

    backend: str
    stage: Stage
    reason: str = ""
    seconds: float = 0.0


class Ensemble:
    """The engines of one version. Any thread may call."""

    def __init__(
        self,
        manifest: package_pb2.ModelPackage,
        primary: Engine,
        sizes: Sequence[int] = (),
        make_policy: MakePolicy | None = None,
        tell: Tell = _tell_nobody,
    ) -> None:
        """Make an ensemble of one.

        Args:
            manifest: Of the version.
            primary: The engine that is there from the start.
            sizes: Of joined batches: the buckets of signatures that may be batched.
            make_policy: Makes what chooses; None where there will be no other engine.
            tell: Is told of every switch and of some failures; see Lane.
        """
        self.primary = primary
        self.ended = threading.Event()
        """Set when the version goes: whoever prepares an engine for it, or tries those that it has, stops."""
        self._lock = threading.Lock()
        self._engines = {primary.backend: primary}
        ready = Candidate(primary.backend, Stage.ELIGIBLE, seconds=primary.seconds)
        self._candidates = {primary.backend: ready}
        self.lanes: Mapping[str, Lane] = {
            signature.name: Lane(
                signature.onnx_file,
                primary,
                buckets=buckets,
                policy=make_policy(buckets) if make_policy else None,
                may_be_infinite=not all(p.is_finite for p in primary.proofs if p.signature == signature.name),
                tell=partial(tell, signature.name),
            )
            for signature in manifest.signatures
            for buckets in [_buckets(sizes) if may_be_joined(signature) else _BUCKETS]
        }

    def engines(self) -> Sequence[Engine]:
        """Those that take part."""
        with self._lock:
            return tuple(self._engines.values())

    def candidates(self) -> Sequence[Candidate]:
        """All that were thought of, in the order in which they were."""
        with self._lock:
            return tuple(self._candidates.values())

    def note(self, candidate: Candidate) -> None:
        """Say how far a backend is; the policies hear of it too."""
        with self._lock:
            self._candidates[candidate.backend] = candidate
        if candidate.stage in _STATES:
            state, words = _STATES[candidate.stage]
            for lane in self.lanes.values():
                lane.stage(candidate.backend, state, candidate.reason or words)

    def add(self, engine: Engine) -> bool:
        """Let a proved engine take part; False if the version has ended, and the engine is to be closed."""
        with self._lock:
            if self.ended.is_set():
                return False
            self._engines[engine.backend] = engine
            self._candidates[engine.backend] = Candidate(engine.backend, Stage.ELIGIBLE, seconds=engine.seconds)
        for lane in self.lanes.values():
            lane.add(engine)
        return True

    def pin(self, order: Sequence[str] | None) -> None:
        """Prefer these backends, in this order, for every signature; None lets the policies choose."""
        for lane in self.lanes.values():
            lane.pin(order)

    def close(self) -> None:
        """Free all engines; see close_all. No run may be under way."""
        with self._lock:
            self.ended.set()
            engines = tuple(self._engines.values())
        close_all(engines)


def _buckets(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes, and one for requests that are larger than a batch."""
    return (*sizes, 2 * sizes[-1]) if sizes else _BUCKETS
