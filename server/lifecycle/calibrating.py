"""What engines do while nobody asks: golden inputs, so that a choice rests on more than the requests that came."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping

from server.arrays import Array
from server.engines.proof import golden_of
from server.lifecycle.servable import Servable

logger = logging.getLogger("server")

_PERIOD_SECONDS = 1.0
"""How often an idle server is looked at; the policy's own protocol says once a second."""
_PATIENCE_SECONDS = 5.0


class Calibrator:
    """One thread that has the engines of an idle server tried."""

    def __init__(
        self,
        servables: Callable[[], Iterable[Servable]],
        is_idle: Callable[[], bool],
        period: float = _PERIOD_SECONDS,
    ) -> None:
        """Make a calibrator.

        Args:
            servables: The versions that serve now.
            is_idle: Whether the server has nothing to do.
            period: Seconds between two looks.
        """
        self._servables = servables
        self._is_idle = is_idle
        self._period = period
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
        while not self._stopping.wait(self._period):
            try:
                self._look()
            except Exception:  # a thread that ended here would never be missed
                logger.exception("looking for engines to try failed unexpectedly; looking again")

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
                while self._may_go_on(servable) and lane.calibrate(feeds_of, outputs):
                    pass

    def _may_go_on(self, servable: Servable) -> bool:
        """Whether nobody waits: neither the server's end, nor the version's, nor a request."""
        return not (self._stopping.is_set() or servable.ensemble.ended.is_set()) and self._is_idle()


class _Golden:
    """Golden inputs of one signature, read when the first run wants them and forgotten after the last.

    Raises DamagedPackage where they cannot be read now, as a folder of a network may not be for a while.
    """

    def __init__(self, servable: Servable, signature: str) -> None:
        self._servable = servable
        self._signature = signature
        self._arrays: Mapping[str, Array] | None = None

    def __call__(self, bucket: int) -> Mapping[str, Array] | None:
        package = self._servable.package
        message = next(s for s in package.manifest.signatures if s.name == self._signature)
        if self._arrays is None:  # the folder may be gone by now, or another package in it: what is loaded serves on
            self._arrays = package.golden_arrays(verify=True)
        case = golden_of(message, self._arrays, bucket)
        return self._servable.signature(self._signature).bind(case[0]) if case else None
