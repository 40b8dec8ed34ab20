"""Tests of `converter.interruption`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from converter.interruption import undisturbed


@contextmanager
def noisy(steps: list[str], *, at_start: bool = False, at_end: bool = False) -> Iterator[str]:
    """A manager that is interrupted while it begins, or while it ends."""
    if at_start:
        signal.raise_signal(signal.SIGINT)
    steps.append("made")
    try:
        yield "value"
    finally:
        if at_end:
            signal.raise_signal(signal.SIGINT)
        steps.append("removed")


def test_without_signals_it_changes_nothing() -> None:
    """The value passes through, and so do errors of the block."""
    steps: list[str] = []
    with pytest.raises(KeyError, match="value"), undisturbed(noisy(steps)) as value:
        raise KeyError(value)
    assert steps == ["made", "removed"]


@pytest.mark.parametrize(("at_start", "steps"), [(True, ["made", "removed"]), (False, ["made", "in", "removed"])])
def test_what_was_begun_is_undone_whenever_the_signal_comes(steps: list[str], *, at_start: bool) -> None:
    """A signal waits until the manager has begun, or ended; then it is handled as ever."""
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt), undisturbed(noisy(seen, at_start=at_start, at_end=not at_start)):
        seen.append("in")
    assert seen == steps
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_block_can_be_interrupted() -> None:
    """Within the block signals are handled at once."""
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), undisturbed(noisy(steps)):
        signal.raise_signal(signal.SIGINT)
    assert steps == ["made", "removed"]
