"""Which version of a model should be loaded or let go, given what is in the repository. Pure.

The policy is TensorFlow Serving's default, the latest version, with one addition: a version that does not load is
passed over for the next lower one, so that a server that starts beside a damaged version serves what it served before.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from server.lifecycle.states import State, VersionStatus


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next for one model: load a version (then retire those it replaces), or retire versions."""

    load: int | None = None
    retire: tuple[int, ...] = ()


def next_step(
    present: Collection[int],
    statuses: Mapping[int, VersionStatus],
    unchanged: Callable[[int], bool],
) -> Step | None:
    """Decide the next step, or None if the model is as it should be.

    Args:
        present: version numbers that have a folder.
        statuses: what is known of the versions so far.
        unchanged: whether a version that failed still has the files that it failed with.
    """
    available = {v for v, status in statuses.items() if status.state is State.AVAILABLE}
    for version in sorted(present, reverse=True):
        if version in available:
            replaced = tuple(sorted(available - {version}))
            return Step(retire=replaced) if replaced else None
        status = statuses.get(version)
        if status is None or status.error is None or not unchanged(version):
            return Step(load=version)
    # Nothing that is present can serve. What serves already goes on, unless the model was removed as a whole.
    return Step(retire=tuple(sorted(available))) if available and not present else None
