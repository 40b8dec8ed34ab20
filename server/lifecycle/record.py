"""What is known of one model, and what follows from it. In memory alone: the manager holds its lock around every use.

The one function that looks at the disk, `look`, is for callers that hold no lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.lifecycle.plan import ModelPolicy, Step, next_step
from server.lifecycle.servable import Servable
from server.lifecycle.states import State, VersionStatus
from server.repository.package import fingerprint, identity

_MAX_ENDED = 32  # versions of a model that ended long ago; more are forgotten


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a version's folder at one moment."""

    fingerprint: tuple[object, ...]
    """Of its files; see `package.fingerprint`."""
    identity: str | None
    """Of the package; see `package.identity`."""
    settled: bool = False
    """The look before saw the same: nothing is being copied there."""


def look(folder: Path, before: Look | None = None) -> Look:
    """Look at a version's folder; its manifest is read only if something has changed since the look before."""
    seen = fingerprint(folder)
    if before is not None and seen == before.fingerprint:
        return before if before.settled else Look(seen, before.identity, settled=True)
    return Look(seen, identity(folder))


@dataclass(slots=True)
class ModelRecord:
    """One model."""

    name: str
    folders: Mapping[int, Path] = field(default_factory=dict)
    """As they were found last."""
    statuses: dict[int, VersionStatus] = field(default_factory=dict)
    servables: dict[int, Servable] = field(default_factory=dict)
    """The versions that serve."""
    sources: dict[int, Look] = field(default_factory=dict)
    """What each of them was loaded from."""
    refused: dict[int, Look] = field(default_factory=dict)
    """What versions were like when they did not load: as long as they are like that, they are not tried again."""
    looks: dict[int, Look] = field(default_factory=dict)
    """What was seen last of each version that is worth looking at."""
    busy: bool = False
    """A thread is bringing the model up to date."""

    def watched(self) -> dict[int, Look | None]:
        """The versions whose files matter, and what was seen of them last."""
        return {version: self.looks.get(version) for version in self.folders.keys() & {*self.refused, *self.servables}}

    def saw(self, before: Mapping[int, Look | None], after: Mapping[int, Look]) -> None:
        """Take over what was seen, unless a version has been loaded since."""
        for version, seen in after.items():
            if self.looks.get(version) is before[version]:
                self.looks[version] = seen

    def next_step(self, policy: ModelPolicy) -> Step | None:
        """What to do next."""
        return next_step(self.folders.keys(), self.statuses, self._unchanged, policy, self._replaced())

    def _unchanged(self, version: int) -> bool:
        refused, seen = self.refused.get(version), self.looks.get(version)
        if refused is None:
            return False
        return seen is None or not seen.settled or seen.fingerprint == refused.fingerprint

    def _replaced(self) -> set[int]:
        """The versions that serve, but whose folder holds another package by now."""
        return {
            version
            for version in self.servables.keys() & self.folders.keys() & self.looks.keys()
            if self.looks[version].identity not in {None, self.sources[version].identity}
            and self.looks[version].settled
            and not (version in self.refused and self._unchanged(version))
        }

    def is_coming(self) -> bool:
        """True while its first version is being loaded."""
        return self.busy and not self.servables

    def outcome(self) -> VersionStatus | None:
        """How the first load has ended: what serves, else what failed; None while that is not known."""
        if self.busy:
            return None
        known = sorted(self.statuses.values(), key=lambda status: status.version, reverse=True)
        available = [status for status in known if status.state is State.AVAILABLE]
        failed = [status for status in known if status.error is not None and status.version in self.folders]
        return next(iter(available + failed), None)

    def forget_old(self) -> list[int]:
        """Forget versions without a folder: what they failed with at once, their ends when there are many.

        Returns:
            The versions whose statuses are forgotten.
        """
        gone = [v for v, s in sorted(self.statuses.items()) if s.state is State.END and v not in self.folders]
        # An error is no news of what may yet come under that number.
        failed = [v for v in gone if self.statuses[v].error is not None]
        ended = [v for v in gone if self.statuses[v].error is None]
        forgotten = failed + ended[:-_MAX_ENDED]
        for version in forgotten:
            del self.statuses[version]
        for version in [v for v in self.refused if v not in self.folders]:
            del self.refused[version]
        for version in [v for v in self.looks if v not in self.servables and v not in self.refused]:
            del self.looks[version]
        return forgotten
