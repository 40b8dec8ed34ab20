"""Every backend of one server, and what becomes of them for each version: loaded, joined, tried, pinned, remembered."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from server.backends.interface import Backend, Precision
from server.batching.choice import Choice
from server.engines.ensemble import MakePolicy
from server.lifecycle.calibrating import Calibrator
from server.lifecycle.decisions import Decisions
from server.lifecycle.preparing import Preparer
from server.lifecycle.servable import Loaded, Servable, load_servable
from server.repository.package import Package

logger = logging.getLogger("server")

_KEEP_SECONDS = 30.0
"""How often decisions are written down; a server that is killed loses so much of them."""
_PATIENCE_SECONDS = 5.0


Allows = Callable[[str, Precision], bool]
"""Whether a model's answers may be computed in a precision."""


def allow_all(_model: str, _precision: Precision) -> bool:
    """Whatever the backends compute in."""
    return True


class EngineRoom:
    """What loads versions, and brings further engines to them."""

    def __init__(
        self,
        backends: Sequence[Backend],
        batching: Choice,
        make_policy: MakePolicy,
        decisions: Decisions,
        *,
        allows: Allows = allow_all,
        keep_seconds: float = _KEEP_SECONDS,
    ) -> None:
        """Make one.

        Args:
            backends: The first loads versions; the others join it, in this order.
            batching: From a package's folder to how its requests are joined.
            make_policy: Makes what chooses for one signature of one version.
            decisions: What was decided before.
            allows: Which of the others may join a model's versions.
            keep_seconds: How often decisions are written down.
        """
        self.backends = tuple(backends)
        self._batching = batching
        self._make_policy = make_policy if len(self.backends) > 1 else None
        self._decisions = decisions
        self._keep_seconds = keep_seconds
        self._preparer = Preparer(self.backends[1:], lambda model, backend: allows(model, backend.precision))
        self._calibrator: Calibrator | None = None
        self._servables: Callable[[], Iterable[Servable]] = tuple
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keep", daemon=True)

    def load(self, package: Package) -> Loaded:
        """Load a package in the first backend; raises as load_servable."""
        loaded = load_servable(package, self.backends[0], self._batching(package.path), self._make_policy)
        try:
            self._decisions.recall(loaded.servable)
            if order := self._decisions.pinned(package.name):
                loaded.servable.ensemble.pin(order)
        except BaseException:
            loaded.servable.close()  # nobody else knows of it
            raise
        return loaded

    def join(self, servable: Servable) -> None:
        """Have the other backends join a version that has become available. Returns at once."""
        servable.ensemble.pin(self._decisions.pinned(servable.name) or None)  # it may have changed while it loaded
        self._preparer.add(servable)

    def forget(self, model: str, version: int) -> None:
        """Keep nothing more of a version that will not come back. Waits for no disk, unless there is one backend."""
        self._decisions.forget(model, version)
        if len(self.backends) == 1:
            self._decisions.tidy()  # there is no thread for it

    def pin(self, model: str, order: Sequence[str]) -> None:
        """Prefer backends for a model, in this order, also after a restart; an empty order lets the policy choose."""
        self._decisions.pin(model, order)
        for servable in self._servables():
            if servable.name == model:  # by what is kept, for two may pin at once
                servable.ensemble.pin(self._decisions.pinned(model) or None)

    def pinned(self, model: str) -> Sequence[str]:
        """What is preferred for a model; empty if the policy chooses."""
        return self._decisions.pinned(model)

    def start(self, servables: Callable[[], Iterable[Servable]], is_idle: Callable[[], bool]) -> None:
        """Begin to bring up engines, and to try them.

        Args:
            servables: The versions that serve now.
            is_idle: Whether the server has nothing to do.
        """
        self._servables = servables
        if len(self.backends) == 1:
            return
        self._preparer.start()
        self._calibrator = Calibrator(servables, is_idle)
        self._calibrator.start()
        self._keeper.start()

    def stop(self) -> None:
        """End, and write down what is known, if the disk answers. Versions that serve go on serving."""
        if len(self.backends) == 1:
            return
        self._preparer.stop()
        if self._calibrator is not None:
            self._calibrator.stop()
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join(_PATIENCE_SECONDS)

    def _keep(self) -> None:
        last = False
        while not last:
            last = self._stopping.wait(self._keep_seconds)
            try:
                self._keep_all(anyway=last)
            except Exception:  # a thread that ended here would never be missed
                logger.exception("writing decisions down failed unexpectedly")

    def _keep_all(self, *, anyway: bool = False) -> None:
        self._decisions.tidy()
        for servable in self._servables():
            try:
                self._decisions.keep(servable, anyway=anyway)
            except Exception:
                logger.exception("model %s: writing down its decisions failed unexpectedly", servable.name)
