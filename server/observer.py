"""What is said of model versions: a line in the log and the metrics, for each change."""

import logging
from collections.abc import Callable

from server.errors import SegueError
from server.lifecycle.servable import Loaded, Servable
from server.lifecycle.states import State, VersionStatus
from server.metrics import Metrics

logger = logging.getLogger("server")


class Observer:
    """Logs what happens to versions and passes it to the metrics."""

    def __init__(
        self, metrics: Metrics, available: Callable[[Servable], None], forget: Callable[[str, int], None]
    ) -> None:
        """Make an observer.

        Args:
            metrics: Counts what happens.
            available: Is told of each version that has become available.
            forget: Drops what is kept of a version that will not come back.
        """
        self._metrics = metrics
        self._available = available
        self._forget = forget

    def status_changed(self, model: str, status: VersionStatus) -> None:
        """See lifecycle.manager.Observer."""
        self._metrics.status_changed(model, status)
        if status.error is not None:
            logger.error("model %s version %d does not load: %s", model, status.version, status.error.message)
        elif status.state is not State.START:
            logger.info("model %s version %d: %s", model, status.version, status.state.name)

    def loaded(self, loaded: Loaded) -> None:
        """See lifecycle.manager.Observer."""
        self._metrics.loaded(loaded)
        servable = loaded.servable
        worst = max((p.difference.max_absolute for p in servable.proofs), default=0.0)
        logger.info(
            "model %s version %d proved on %s in %.2f s: largest difference from TensorFlow %.1e",
            *(servable.name, servable.version, servable.backend_name, loaded.seconds, worst),
        )
        self._available(servable)

    def not_replaced(self, model: str, version: int, error: SegueError) -> None:
        """See lifecycle.manager.Observer."""
        self._metrics.load_failed(model)
        logger.error(
            "model %s version %d: the package that is in its folder now does not load; the one before serves on: %s",
            *(model, version, error.message),
        )

    def forgotten(self, model: str, version: int) -> None:
        """See lifecycle.manager.Observer."""
        self._metrics.forgotten(model, version)
        self._forget(model, version)
