"""The digests by which the world is frozen: `python -m benchmarks.selection.manifest` prints them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import Enum

import numpy as np

from benchmarks.selection.baselines import Calibrated
from benchmarks.selection.conditions import realise
from benchmarks.selection.hindsight import look_back
from benchmarks.selection.scenarios import frozen
from benchmarks.selection.score import score
from benchmarks.selection.specification import Scenario
from benchmarks.selection.world import play

# Written down before any policy was. Another value means another world, in which earlier results say nothing.
SPECIFICATIONS = "cfbf505959001fec09b30b6adecb4bf952d1aa66e330fe89ec770fe51d9e1922"
# Of the first seed of each family, for the arrays are large.
CONDITIONS = "3d0d9f3f4a00220227765de7856b8e816c1b534e21da358dc2a342c545fb99df"
# Of one baseline on the same seeds: how the world plays and judges.
SCORES = "95779e777a8cdead96a5a788196fe87a3f7b9208fc7996e49e7441ded8565163"


def specifications(scenarios: Iterable[Scenario]) -> str:
    """SHA-256 over the facts of scenarios, as JSON lines."""
    digest = hashlib.sha256()
    for scenario in scenarios:
        digest.update(json.dumps(asdict(scenario), default=_plain, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def conditions(scenarios: Iterable[Scenario]) -> str:
    """SHA-256 over the arrays made from scenarios, in parts per hundred million.

    Mathematical functions differ in the last bit from one processor to another, so the last bits stay out.
    """
    digest = hashlib.sha256()
    for scenario in scenarios:
        made = realise(scenario)
        values = (made.arrivals, made.mean, made.error, made.not_finite, made.noise, made.luck)
        for array in (*values, made.calibration_noise, made.calibration_luck):
            digest.update(np.rint(array * 1e8).astype("<i8").tobytes())
        for whole in (made.buckets, made.cells, made.available, made.poison):
            digest.update(whole.astype("<i8").tobytes())
    return digest.hexdigest()


def scores(scenarios: Iterable[Scenario]) -> str:
    """SHA-256 over what the baseline that calibrates once scores, to six digits."""
    digest = hashlib.sha256()
    for scenario in scenarios:
        made = realise(scenario)
        facts = asdict(score(made, look_back(made), play(made, Calibrated(scenario.buckets))))
        rounded = {name: float(f"{fact:.6g}") if isinstance(fact, float) else fact for name, fact in facts.items()}
        digest.update(json.dumps(rounded, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    raise TypeError(f"no JSON for {value!r}")


if __name__ == "__main__":
    print("SPECIFICATIONS", specifications(frozen()))
    print("CONDITIONS", conditions(frozen(range(1))))
    print("SCORES", scores(frozen(range(1))))
