"""Which requests take so little that a thread of their own would cost more than it saves. Pure."""

import threading

# What handing a request to another thread and back costs; see docs/decisions/0004.
QUICK_SECONDS = 2e-4
# The weight of one run in the share of runs that were slow: about the last thirty count.
_WEIGHT = 1 / 32
# More slow runs than this, and the signature is not quick. Now and then the machine itself makes a run slow.
_TOLERATED = 0.25


class Quickness:
    """How long one signature's runs took of late, by the size of requests in powers of two."""

    def __init__(self) -> None:
        self._slow_share: dict[int, float] = {}
        self._lock = threading.Lock()

    def is_quick(self, size: int) -> bool:
        """Whether requests of about so many bytes are quick; unknown ones are not."""
        return self._slow_share.get(size.bit_length(), 1.0) < _TOLERATED

    def observe(self, size: int, seconds: float) -> None:
        """Note that a request of so many bytes took so long to run."""
        kind = size.bit_length()
        with self._lock:
            share = self._slow_share.get(kind, 1.0)
            self._slow_share[kind] = share + _WEIGHT * ((seconds > QUICK_SECONDS) - share)
