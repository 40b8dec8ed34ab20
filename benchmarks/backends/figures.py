"""From alternating timings to figures: medians with spread, and ratios of what ran next to each other.

Pure. A machine that others use too slows down what runs together alike, so ratios within a round tell more than ratios
of medians.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of paired ratios and its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """As the tables have it."""
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def paired_ratio(reference: Sequence[float], other: Sequence[float]) -> Ratio:
    """How many times as fast as the reference the other is: by rounds, with a bootstrap over the rounds.

    Args:
        reference: Seconds of each round.
        other: Seconds of the same rounds.

    Raises:
        ValueError: they are not of the same rounds.
    """
    ratios = np.array([a / b for a, b in zip(reference, other, strict=True)])
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (RESAMPLES, ratios.size)), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def summarise(samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Milliseconds of one contender each: median, quartiles and all rounds."""
    rows = {}
    for name, seconds in samples.items():
        low, middle, high = (1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])).tolist()
        rows[name] = {"median_ms": middle, "quartiles_ms": [low, high], "rounds_ms": [1e3 * s for s in seconds]}
    return rows


def references(names: Sequence[str]) -> dict[str, str]:
    """By contender, the native one that it must be as fast as: compiled in the same precision, if it takes part."""
    wanted = {"torch-cpu": "native-compiled", "torch-cpu-bf16": "native-compiled-bf16"}
    return {name: native for name, native in wanted.items() if name in names and native in names}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for each batch and contender."""
    lines = ["| batch | contender | median ms | quartiles | times TensorFlow (95 %) | times compiled native (95 %) |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        for name, figure in row["contenders"].items():
            quartiles = " - ".join(f"{value:.1f}" for value in figure["quartiles_ms"])
            cells = [str(row["batch"]), name, f"{figure['median_ms']:.1f}", quartiles]
            cells += [str(Ratio(*figure[key])) if key in figure else "" for key in ("tensorflow", "native")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
