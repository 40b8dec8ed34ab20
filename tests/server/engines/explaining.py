"""A policy that says of its choices what a test wants it to say."""

from dataclasses import dataclass, field

from tests.server.engines.choosing import Told


@dataclass(frozen=True)
class Stands:
    """See server.engines.explained.Standing."""

    bucket: int
    backend: str
    state: str = "eligible"
    reason: str = ""
    estimate: float | None = None
    samples: int = 0
    last_seen: float | None = None


@dataclass(frozen=True)
class Switched:
    """See server.engines.explained.Switch."""

    time: float
    bucket: int
    before: str
    after: str
    reason: str


@dataclass(frozen=True)
class Seen:
    """See server.engines.explained.Snapshot."""

    standings: tuple[Stands, ...]
    selected: dict[int, str]


@dataclass
class Explains(Told):
    """Told, and talkative."""

    standings: dict[tuple[int, str], Stands] = field(default_factory=dict)
    selected: dict[int, str] = field(default_factory=dict)
    history: list[Switched] = field(default_factory=list)

    def say(self, *standings: Stands) -> None:
        """Say this of a backend in a bucket from now on."""
        self.standings |= {(one.bucket, one.backend): one for one in standings}

    def snapshot(self) -> Seen:
        """What was said last."""
        return Seen(tuple(self.standings.values()), dict(self.selected))
