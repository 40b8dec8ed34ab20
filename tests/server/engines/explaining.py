"""A policy that says of its choices what a test wants it to say."""

from dataclasses import dataclass, field
from typing import Any

from server.engines.explained import Standing, Switch
from tests.server.engines.choosing import Told

Stands, Switched = Standing, Switch


@dataclass
class Explains(Told):
    """Told, and talkative."""

    standings: dict[tuple[int, str], Standing] = field(default_factory=dict)
    selected: dict[int, str] = field(default_factory=dict)
    history: list[Switch] = field(default_factory=list)

    def say(self, *standings: Standing) -> None:
        """Say this of a backend in a bucket from now on."""
        self.standings |= {(one.bucket, one.backend): one for one in standings}

    def snapshot(self, now: float) -> dict[str, Any]:
        """What was said last, in the form of selection.policy.Selector's."""
        return {
            "pairs": [
                {
                    "bucket": one.bucket,
                    "backend": one.backend,
                    "state": one.state,
                    "reason": one.reason,
                    "seconds": one.estimate,
                    "samples": one.samples,
                    "last_seen": None if one.last_seen is None else now - one.last_seen,
                }
                for one in self.standings.values()
            ],
            "selected": dict(self.selected),
            "switches": [
                {
                    "time": s.time,
                    "bucket": s.bucket,
                    "from": s.before,
                    "to": s.after,
                    "reason": s.reason,
                    "kind": s.kind,
                }
                for s in self.history
            ],
            "exploration_share": 0.0,
        }
