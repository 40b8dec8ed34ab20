"""Letting a version go: its requests finish, its memory is given back, and nothing else waits for either."""

import logging
import threading
import time
from collections.abc import Callable

from server.lifecycle.servable import Servable

logger = logging.getLogger(__name__)

UNLOAD_SECONDS = 600.0
"""After that long a request that still holds a version is taken for hung, and the version is freed all the same."""
# How long the caller waits for the requests. What takes longer gets a thread of its own.
_PROMPT_SECONDS = 1.0


def let_go(
    servable: Servable, seconds: float, ended: Callable[[], None] | None = None, *, end: float | None = None
) -> None:
    """Have a version's requests finish, free it, and say so.

    Args:
        servable: which; no new request finds it any more.
        seconds: how long requests have to finish.
        ended: is called at the end, by a thread of its own if the requests take long.
        end: stay here until all is done, with time until then by time.monotonic(), in place of `seconds`.
    """

    def close(timeout: float | None) -> None:
        try:
            if not servable.close(timeout):
                logger.warning("model %s version %d: freed while requests use it", servable.name, servable.version)
        except Exception:  # whatever a backend's library says at the end, the version is gone
            logger.exception("model %s version %d: freeing it failed", servable.name, servable.version)
        if ended is not None:
            ended()

    if end is not None:
        close(None if end == float("inf") else max(0.0, end - time.monotonic()))
    elif servable.drained(_PROMPT_SECONDS):
        close(0)
    else:
        threading.Thread(target=close, args=(seconds,), name="unload", daemon=True).start()
