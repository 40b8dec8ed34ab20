"""A scenario small and quiet enough to reckon by hand, and the policy that follows a script."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.selection.baselines import Baseline
from benchmarks.selection.interface import Calibration, Decision, Outcome
from benchmarks.selection.specification import Backend, Effect, Kind, Scenario, Traffic

ALWAYS = ((0.0, 1000.0),)
BACKEND = Backend((0.1,), 0.0, 0.0, 0.0, (2.0, 3.0), 0.0, 0, 1.0, 1e9, ALWAYS)


def quiet(*backends: Backend, effects: tuple[Effect, ...] = (), poison_chance: float = 0.0) -> Scenario:
    """1000 batches in 1000 s of one bucket; by default `a` takes 0.1 s and `b` 0.2 s, without noise or failures."""
    return Scenario(
        family="quiet",
        seed=0,
        duration=1000.0,
        batches=1000,
        workers=1,
        buckets=(1,),
        backends=backends or (BACKEND, replace(BACKEND, latency=(0.2,))),
        traffic=Traffic(((1.0,),), 0.0, 1.0, 0.0, 1.0, ()),
        effects=effects,
        poison_chance=poison_chance,
    )


def slow(size: float, start: float = 500.0, end: float = 1000.0, *, kind: Kind = Kind.SLOW) -> Effect:
    """Backend `a` degrades."""
    return Effect(kind, (0,), (0,), start, end, size, is_degradation=True)


class Scripted(Baseline):
    """Chooses as a function of the moment says; remembers what it was told."""

    def __init__(self, script: Callable[[float], Decision], calibrations: int = 0) -> None:
        super().__init__((1,))
        self.script, self.calibrations = script, calibrations
        self.seen: list[tuple[Outcome, float]] = []
        self.clock: list[float] = []

    def choose(self, bucket: int, now: float, failed: Sequence[str]) -> Decision:
        """By the script; after a failure, another."""
        self.clock.append(now)
        return super().choose(bucket, now, failed) if failed else self.script(now)

    def observe(self, outcome: Outcome, now: float) -> None:
        """Remember."""
        self.clock.append(now)
        self.seen.append((outcome, now))

    def idle(self, now: float) -> Calibration | None:
        """So many calibrations of `b`."""
        self.clock.append(now)
        self.calibrations -= 1
        return Calibration(1, "b") if self.calibrations >= 0 else None


def only(backend: str) -> Callable[[float], Decision]:
    """The script of one backend."""
    return lambda _: Decision(backend)
