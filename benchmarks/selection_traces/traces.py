"""What a trace is, and its fingerprint.

Here live only the data. How traces are made is in `scene` and the modules of families, how one is scored in
`hindsight`.
"""

import dataclasses
import hashlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

#: Seconds are multiples of this, so that a last bit which another processor's exp() rounds otherwise changes no
#: fingerprint.
TICK = 1e-7


@dataclasses.dataclass(frozen=True)
class Episode:
    """A stretch in which one backend is much worse than it was; one that serves then should be left.

    Attributes:
        backend: Whose.
        begin: Seconds, the first moment of it.
        end: Seconds, the first moment after it.
        factor: By how much its runs take longer; infinite where they fail.
    """

    backend: int
    begin: float
    end: float
    factor: float


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Batches in the order of their arrival, and what each backend would have made of each.

    Arrivals are an open loop: they depend on no choice. Of n batches, k backends and b buckets:

    Attributes:
        family: Name of the family.
        seed: Which of the family.
        sizes: The b batch sizes that the buckets stand for, ascending.
        times: Seconds of arrival, [n], not descending, from 0.
        buckets: Index into `sizes`, [n].
        durations: Seconds of a run begun at that arrival, [n, k]; inf where it raises, nan where its outputs are NaN.
        elapsed: Seconds that such a run keeps the machine busy, [n, k], finite also where it raises; 0 before `ready`.
        level: What a run of that bucket takes on average at that moment, [n, k]: `durations` without the noise. Never
            for a policy's eyes.
        golden: What a run on golden inputs of that bucket at the next idle moment would take, [n, k]; same conventions
            as `durations`. What a probe sees; it may lie about served batches.
        calibration: Seconds of golden runs before the first arrival, or before `ready`, [rounds, b, k].
        ready: Second from which each backend can be used, [k]; 0 for most. Before it `durations` is inf.
        poisoned: Batches whose input fails (inf) or gives NaN on every backend, [n]: the client's fault.
        episodes: The deliberate degradations and outages, for whoever counts how soon a backend is left.
    """

    family: str
    seed: int
    sizes: tuple[int, ...]
    times: Floats
    buckets: Integers
    durations: Floats
    elapsed: Floats
    level: Floats
    golden: Floats
    calibration: Floats
    ready: Floats
    poisoned: Booleans
    episodes: tuple[Episode, ...]

    @property
    def backends(self) -> int:
        """Number of backends."""
        return int(self.durations.shape[1])

    @property
    def usable(self) -> Booleans:
        """[n, k]: the backend is ready and answers this batch."""
        return np.isfinite(self.durations)


def ticks(seconds: Floats) -> Integers:
    """Whole ticks; -1 stands for inf and -2 for nan."""
    finite = np.isfinite(seconds)
    whole = np.rint(np.where(finite, seconds, 0.0) / TICK).astype("<i8")
    whole[~finite] = np.where(np.isnan(seconds[~finite]), -2, -1)
    return whole


def fingerprint(trace: Trace) -> bytes:
    """SHA-256 of all that a policy can see of a trace, and of what its choices cost."""
    digest = hashlib.sha256(f"{trace.family}/{trace.seed}/{trace.sizes}".encode())
    for seconds in (trace.times, trace.durations, trace.elapsed, trace.golden, trace.calibration, trace.ready):
        digest.update(ticks(seconds).tobytes())
    digest.update(trace.buckets.astype("<i8").tobytes() + trace.poisoned.tobytes())
    return digest.digest()
