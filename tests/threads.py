"""A system that gives no threads, as one does at the limit of a container or a user."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# More than a process has addresses for, so that no stack of this size can be had.
_TOO_LARGE = 1 << 47


@contextmanager
def no_threads() -> Iterator[None]:
    """Whatever starts a thread of Python's meanwhile fails as it does then; those that run go on."""
    before = threading.stack_size(_TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(before)
