"""Further engines, brought up beside requests: prepared, loaded and proved one after the other, then let in.

Cheap backends come first for every version, so that none waits for another's compilation.
"""

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Sequence

from server.backends.interface import Backend
from server.engines.engine import load_engine
from server.engines.ensemble import Candidate, Stage
from server.errors import SegueError
from server.lifecycle.servable import Servable

logger = logging.getLogger("server")

_LAST = 1 << 30
# A child that is told to end may take so long.
_PATIENCE_SECONDS = 5.0


class Preparer:
    """One thread that brings up engines."""

    def __init__(self, backends: Sequence[Backend], may_join: Callable[[str, Backend], bool]) -> None:
        """Make a preparer.

        Args:
            backends: Those that join the one which a version was loaded with, the quickest to prepare first.
            may_join: Whether it may answer for a model.
        """
        self._backends = tuple(backends)
        self._may_join = may_join
        self._work: queue.PriorityQueue[tuple[int, int, Servable | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._under_way: Servable | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prepare", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def add(self, servable: Servable) -> None:
        """Have a version that has become available joined by every other backend that may. Returns at once."""
        for rank, backend in enumerate(self._backends):
            if self._may_join(servable.name, backend):
                servable.ensemble.note(Candidate(backend.name, Stage.WAITING))
                self._work.put((rank, next(self._numbers), servable))

    def stop(self) -> None:
        """End, once what is under way has been given up."""
        self._stopping.set()
        self._work.put((-1, 0, None))
        if (servable := self._under_way) is not None:
            servable.ensemble.ended.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)

    def _run(self) -> None:
        while True:
            rank, _, servable = self._work.get()
            if servable is None:
                return
            self._under_way = servable
            if self._stopping.is_set():  # after the line before: either `stop` sees what is under way, or it is seen
                return
            if not servable.ensemble.ended.is_set():
                try:
                    self._bring_up(servable, self._backends[rank])
                except Exception as error:  # the next version must not wait for ever
                    logger.exception("model %s: bringing a backend up failed unexpectedly", servable.name)
                    self._reject(servable, self._backends[rank], f"{type(error).__name__}: {error}")
            self._under_way = None
            del servable  # nothing of it may outlive it here

    def _bring_up(self, servable: Servable, backend: Backend) -> None:
        ensemble = servable.ensemble
        ensemble.note(Candidate(backend.name, Stage.PREPARING))
        sizes = servable.batching.buckets if servable.batching else ()
        of_version = (servable.name, servable.version)
        try:
            engine = load_engine(
                *(servable.package, backend, sizes, ensemble.ended),
                may_leave=True,
                tell_loaded=lambda: ensemble.note(Candidate(backend.name, Stage.PROVING)),
            )
        except SegueError as error:
            if not ensemble.ended.is_set():
                self._reject(servable, backend, error.message)
            return
        except Exception as error:  # whatever a library says, the version serves on
            logger.exception("model %s version %d: bringing %s up failed unexpectedly", *of_version, backend.name)
            self._reject(servable, backend, f"{type(error).__name__}: {error}")
            return
        if not ensemble.add(engine):
            engine.close()
            return
        worst = max((proof.difference.max_absolute for proof in engine.proofs), default=0.0)
        logger.info(
            "model %s version %d proved on %s too, in %.2f s: largest difference from TensorFlow %.1e",
            *(*of_version, engine.backend, engine.seconds, worst),
        )

    @staticmethod
    def _reject(servable: Servable, backend: Backend, reason: str) -> None:
        servable.ensemble.note(Candidate(backend.name, Stage.REJECTED, reason))
        logger.warning(
            "model %s version %d is not served by %s: %s", servable.name, servable.version, backend.name, reason
        )
