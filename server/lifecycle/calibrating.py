"""What engines do while nobody asks: golden inputs, so that a choice rests on more than the requests that came."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping

from server.arrays import Array
from server.engines.proof import golden_of
from server.errors import SegueError
from server.lifecycle.servable import Servable

logger = logging.getLogger("server")

_PERIOD_SECONDS = 1.0
"""How often an idle server is looked at; the policy's own protocol says once a second."""
_PATIENCE_SECONDS = 5.0


class Calibrator:
    """One thread that has the engines of an idle server tried."""

    def __init__(self, servables: Callable[[], Iterable[Servable]], is_idle: Callable[[], bool]) -> None:
        """Make a calibrator.

        Args:
            servables: The versions that serve now.
            is_idle: Whether the server has nothing to do.
        """
        self._servables = servables
        self._is_idle = is_idle
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="calibrate", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End after the run that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_SECONDS):
            self._look()

    def _look(self) -> None:
        for servable in self._servables():
            try:
                self._calibrate(servable)
            except Exception:
                logger.exception("model %s: trying its engines failed unexpectedly; trying again", servable.name)

    def _calibrate(self, servable: Servable) -> None:
        """Make the runs that a version's policies want, as long as nobody else wants anything."""
        if len(servable.ensemble.engines()) == 1 or not servable.lease():
            return
        with servable.leased():
            for signature in servable.signatures.values():
                lane = servable.ensemble.lanes[signature.name]
                outputs = list(signature.outputs.values())
                feeds_of = _Golden(servable, signature.name)
                while not self._stopping.is_set() and self._is_idle() and lane.calibrate(feeds_of, outputs):
                    pass


class _Golden:
    """Golden inputs of one signature, read when the first run wants them and forgotten after the last."""

    def __init__(self, servable: Servable, signature: str) -> None:
        self._servable = servable
        self._signature = signature
        self._arrays: Mapping[str, Array] | None = None

    def __call__(self, bucket: int) -> Mapping[str, Array] | None:
        package = self._servable.package
        message = next(s for s in package.manifest.signatures if s.name == self._signature)
        try:
            if self._arrays is None:
                self._arrays = package.golden_arrays()
        except SegueError:  # the folder may be gone by now: what is loaded serves on
            return None
        try:
            case = golden_of(message, self._arrays, bucket)
        except KeyError:  # another package is in the folder by now
            return None
        return self._servable.signature(self._signature).bind(case[0]) if case else None
