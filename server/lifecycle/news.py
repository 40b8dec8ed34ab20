"""What is to be told to an observer: in the order in which it happened, and by nobody who holds the manager's lock."""

import threading
from collections import deque
from collections.abc import Callable


class News:
    """Calls that wait for a moment without a lock."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._telling = threading.RLock()  # one that an observer may take again, by asking for something new

    def add(self, tell: Callable[[], None]) -> None:
        """Have something told. The lock that orders the changes may be held, and should be."""
        self._waiting.append(tell)

    def tell(self) -> None:
        """Tell what waits, also what others have added; when this returns, what the caller has added is told.

        Not to be called with the manager's lock held.
        """
        with self._telling:
            while self._waiting:
                self._waiting.popleft()()
