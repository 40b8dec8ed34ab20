"""A policy whose every choice a test decides, and backends whose runs it decides too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from server.arrays import Array
from server.backends.fake import FakeGraph
from server.backends.interface import Precision
from server.engines.engine import Engine
from server.selection.interface import Calibration, Decision, Outcome
from server.selection.states import State


@dataclass
class Told:
    """Chooses the first in `order` that has not failed; remembers what it is told."""

    order: list[str] = field(default_factory=list)
    wanted: list[Calibration] = field(default_factory=list)
    """Calibrations to ask for, the last first."""
    outcomes: list[Outcome] = field(default_factory=list)
    available: list[str] = field(default_factory=list)
    pinned: Sequence[str] | None = None
    without_inputs: list[int] = field(default_factory=list)
    disturbances: list[float] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)
    stages: list[tuple[str, State, str]] = field(default_factory=list)

    def backend_state(self, backend: str, *, available: bool, now: float) -> None:
        """Remember it."""
        assert available
        assert now >= 0
        self.available.append(backend)

    def stage(self, backend: str, state: State, reason: str = "") -> None:
        """Remember it."""
        assert backend not in self.available
        self.stages.append((backend, state, reason))

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:
        """See Told."""
        assert bucket > 0
        assert now >= 0
        order = (*(self.pinned or self.order), *self.available)
        return Decision(next(name for name in order if name in self.available and name not in failed))

    def observe(self, outcome: Outcome, now: float) -> None:
        """Remember it."""
        assert now >= 0
        self.outcomes.append(outcome)

    def idle(self, now: float) -> Calibration | None:
        """The next that the test wants."""
        assert now >= 0
        return self.wanted.pop() if self.wanted else None

    def pin(self, order: Sequence[str] | None) -> None:
        """Remember it."""
        self.pinned = order

    def export(self, now: float) -> dict[str, Any]:
        """What `restore` was given, and how much was observed."""
        assert now >= 0
        return {**self.known, "observed": len(self.outcomes)}

    def restore(self, data: object, now: float) -> None:
        """Refuses what `export` does not give."""
        assert now >= 0
        if not isinstance(data, dict) or "observed" not in data:
            raise ValueError("nothing was observed")
        self.known = data

    def has_no_inputs(self, bucket: int) -> None:
        """Remember it, and want none of that size any more."""
        self.without_inputs.append(bucket)
        self.wanted = [one for one in self.wanted if one.bucket != bucket]

    def disturbed(self, seconds: float) -> None:
        """Remember it."""
        self.disturbances.append(seconds)

    def snapshot(self, now: float) -> dict[str, Any]:
        """Nothing is explained."""
        assert now >= 0
        return {"pairs": [], "selected": {}, "switches": [], "exploration_share": 0.0}


def engine(name: str, answer: Callable[[Array], Array]) -> Engine:
    """An engine whose one output "y" is computed from its one input "x"."""
    return Engine(name, Precision.FP32, {"model.onnx": FakeGraph(lambda feeds: {"y": answer(feeds["x"])})})


def batch(rows: int = 1, value: float = 1.0) -> dict[str, Array]:
    """Feeds of so many rows."""
    return {"x": np.full((rows, 2), value, np.float32)}
