"""Which version of a model should be loaded or let go, given what is in its folder and its policy. Pure.

The policies are those of TensorFlow Serving's FileSystemStoragePathSourceConfig, with two additions. By "latest" a
version that does not load is passed over for the next lower one, so that a server that starts beside a damaged version
serves what it served before. And what serves is let go only after something that the policy wants serves in its place.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from server.lifecycle.states import State, VersionStatus


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """Which versions of a model shall serve, and the labels that clients may call them by."""

    count: int | None = 1
    """How many, the highest first, of those that load; None for all. The default is TensorFlow Serving's."""
    only: frozenset[int] | None = None
    """Consider no other versions than these; None for any."""
    labels: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def latest(cls, count: int = 1) -> "ModelPolicy":
        """The highest versions; 0 means 1, as in TensorFlow Serving."""
        return cls(count=max(count, 1))

    @classmethod
    def all(cls) -> "ModelPolicy":
        """Every version."""
        return cls(count=None)

    @classmethod
    def specific(cls, versions: Collection[int]) -> "ModelPolicy":
        """Exactly these versions; one that has no folder is waited for."""
        return cls(count=None, only=frozenset(versions))

    def wants_nothing(self) -> bool:
        """True if no version could ever satisfy the policy."""
        return self.only is not None and not self.only

    def may_agree_with(self, other: "ModelPolicy") -> bool:
        """True if one version could satisfy both."""
        if self.only is None or other.only is None or self.only == other.only:
            return True
        return not self.only.isdisjoint(other.only)


DEFAULT_POLICY = ModelPolicy()


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next for one model: load a version (then retire those it replaces), or retire versions."""

    load: int | None = None
    retire: tuple[int, ...] = ()


def next_step(
    present: Collection[int],
    statuses: Mapping[int, VersionStatus],
    unchanged: Callable[[int], bool],
    policy: ModelPolicy = DEFAULT_POLICY,
    replaced: Collection[int] = (),
) -> Step | None:
    """Decide the next step, or None if the model is as it should be.

    Args:
        present: version numbers that have a folder.
        statuses: what is known of the versions so far.
        unchanged: whether a version that failed still has the files that it failed with.
        policy: which of the versions shall serve.
        replaced: versions that serve, but whose folder holds another package by now.
    """
    available = {v for v, status in statuses.items() if status.state is State.AVAILABLE}
    keep: set[int] = set()
    for version in sorted(present, reverse=True):
        if len(keep) == policy.count:
            break
        if policy.only is not None and version not in policy.only:
            continue
        if version in replaced:
            return Step(load=version)
        if version in available:
            keep.add(version)
            continue
        status = statuses.get(version)
        if status is not None and status.state is State.UNLOADING:
            continue  # its number is free again when it has ended
        if status is None or status.error is None or not unchanged(version):
            return Step(load=version)
    if not keep and present and not policy.wants_nothing():
        return None  # nothing that the policy wants can serve: what serves already goes on
    surplus = tuple(sorted(available - keep))
    return Step(retire=surplus) if surplus else None
