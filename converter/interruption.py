"""Keeping signals away from moments at which they would leave something behind.

Python handles a signal between any two of its steps, so also between making a folder and noting that it must be
removed. What signals do otherwise is the command line's business.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Final, TypeVar

SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # that end a conversion

T = TypeVar("T")


@contextmanager
def undisturbed(manager: AbstractContextManager[T]) -> Iterator[T]:
    """Enter and leave a context manager without interruptions: only the block can be interrupted.

    The manager is not told whether the block failed.
    """
    with ExitStack() as stack:
        with _later():
            entered = stack.enter_context(manager)
        try:
            yield entered
        finally:
            with _later():
                stack.close()


@contextmanager
def _later() -> Iterator[None]:
    """Have signals that arrive during the block handled after it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    handled = [number for number in SIGNALS if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])
