"""The frozen catalogue: each family's seeds, and the most time that a good policy loses in it.

Bounds are what `players.informed` loses at the 95th percentile of the family, and three points more (four, against
the oracle) for learning through noise. The exception is `clockwork`, which fools that player: see the package.
Changing what makes a trace changes the fingerprint of the whole, which a test holds.
"""

import dataclasses
import hashlib
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.selection_traces import adversaries, faults, machines, workloads
from benchmarks.selection_traces.scene import Scene
from benchmarks.selection_traces.traces import Trace, fingerprint

_SEEDS = range(48)


@dataclasses.dataclass(frozen=True)
class Family:
    """Traces of one kind.

    Attributes:
        make: Lays out one scene; its docstring says what happens in it.
        window: Most time lost at the 95th percentile of the seeds, against the best constant choice per bucket and
            minute: 0.05 is 5 %.
        oracle: The same against the best choice for each batch, noise foreseen.
        seeds: Frozen.
    """

    make: Callable[[np.random.Generator], Scene]
    window: float
    oracle: float
    seeds: range = _SEEDS

    @property
    def name(self) -> str:
        """What the family is called in results."""
        return self.make.__name__

    def trace(self, seed: int) -> Trace:
        """The trace of that seed, always the same.

        Raises:
            ValueError: The seed is not one of the family's.
        """
        if seed not in self.seeds:
            raise ValueError(f"{self.name} has the seeds {self.seeds}, not {seed}")
        rng = np.random.default_rng((zlib.crc32(self.name.encode()), seed))
        return self.make(rng).finish(self.name, seed)


FAMILIES: tuple[Family, ...] = (
    Family(machines.contention, window=0.15, oracle=0.21),
    Family(machines.thermal_steps, window=0.06, oracle=0.09),
    Family(machines.common_stalls, window=0.08, oracle=0.10),
    Family(machines.cold_after_idle, window=0.18, oracle=0.41),
    Family(machines.collector_spikes, window=0.14, oracle=0.43),
    Family(machines.bandwidth, window=0.04, oracle=0.11),
    Family(machines.two_modes, window=0.06, oracle=0.18),
    Family(machines.leak, window=0.05, oracle=0.10),
    Family(machines.clockwork, window=0.15, oracle=0.42),
    Family(workloads.hot_bucket, window=0.04, oracle=0.06),
    Family(workloads.moving_crossover, window=0.05, oracle=0.07),
    Family(workloads.late_compiled, window=0.05, oracle=0.07),
    Family(workloads.calibration_liar, window=0.04, oracle=0.06),
    Family(workloads.near_ties, window=0.09, oracle=0.33),
    Family(workloads.sparse, window=0.47, oracle=0.48),
    Family(workloads.dense, window=0.10, oracle=0.17),
    Family(faults.failing_runs, window=0.07, oracle=0.10),
    Family(faults.poisoned, window=0.05, oracle=0.08),
    Family(faults.healing, window=0.25, oracle=0.33),
    Family(faults.everything, window=0.10, oracle=0.13),
    Family(adversaries.costly_rivals, window=0.04, oracle=0.06),
    Family(adversaries.late_reversal, window=0.05, oracle=0.08),
    Family(adversaries.misleading_last, window=0.04, oracle=0.21),
    Family(adversaries.seesaw, window=0.23, oracle=0.32),
    Family(adversaries.decoys, window=0.06, oracle=0.67),
)


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        KeyError: There is none.
    """
    return {each.name: each for each in FAMILIES}[name]


def traces() -> Iterator[Trace]:
    """All 1,200, one at a time."""
    for each in FAMILIES:
        for seed in each.seeds:
            yield each.trace(seed)


def catalogue_fingerprint() -> str:
    """SHA-256 over the fingerprints of all traces, in hexadecimal."""
    digest = hashlib.sha256()
    for trace in traces():
        digest.update(fingerprint(trace))
    return digest.hexdigest()
