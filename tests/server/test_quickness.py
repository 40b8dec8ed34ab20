"""Tests of `server.quickness`."""

from server.quickness import QUICK_SECONDS, Quickness

SHORT, LONG = QUICK_SECONDS / 2, QUICK_SECONDS * 2


def after(*seconds: float) -> Quickness:
    """What is known after runs of these lengths, all for requests of 100 bytes."""
    quickness = Quickness()
    for each in seconds:
        quickness.observe(100, each)
    return quickness


def test_what_is_not_known_is_not_quick() -> None:
    """The polling thread is never risked on a guess."""
    assert not Quickness().is_quick(100)
    assert not after(*[SHORT] * 5).is_quick(100)


def test_many_short_runs_are_quick() -> None:
    """A signature earns its place in the polling thread, for requests of that size only."""
    quickness = after(*[SHORT] * 60)
    assert quickness.is_quick(100)
    assert quickness.is_quick(127)
    assert not quickness.is_quick(1000)


def test_one_long_run_changes_nothing_and_several_do() -> None:
    """The machine's own hiccup is forgiven; a model that has become slow leaves the polling thread soon."""
    quickness = after(*[SHORT] * 200)
    quickness.observe(100, LONG)
    assert quickness.is_quick(100)
    runs = 1
    while quickness.is_quick(100):
        quickness.observe(100, LONG)
        runs += 1
    assert runs <= 10
