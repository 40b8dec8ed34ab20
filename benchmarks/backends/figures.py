"""From alternating timings to figures: medians with spread, and ratios of what ran next to each other.

Pure. A machine that others use too slows down what runs together alike, so ratios within a round tell more than ratios
of medians.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

RESAMPLES: Final = 2000
REFERENCES: Final[Mapping[str, Mapping[str, str]]] = {
    "native": {"torch-cpu": "native-compiled", "torch-cpu-bf16": "native-compiled-bf16"},
    "native_autocast": {"torch-cpu-bf16": "native-compiled-autocast-bf16"},
}
"""By the key of a ratio: our compiled modules, and the native model each must be as fast as.

Ours computes in bfloat16 where autocast does: that is the second; the first is what people write."""


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


def references(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """REFERENCES, of those that take part."""
    return {
        key: {ours: native for ours, native in pairs.items() if ours in names and native in names}
        for key, pairs in REFERENCES.items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for each contender, by batch its median and how many times as fast as TensorFlow that is."""
    lines = _head([f"batch {row['batch']}, ms (times TensorFlow)" for row in rows])
    for name in rows[0]["contenders"]:
        figures = [row["contenders"][name] for row in rows]
        cells = [_median(figure) for figure in figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def natives(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for each pair of REFERENCES, by batch how many times as fast as the native model ours is."""
    lines = _head([f"batch {row['batch']}, times the compiled native model" for row in rows])
    for key, pairs in REFERENCES.items():
        for ours, native in pairs.items():
            cells = [_ratio(row["contenders"].get(ours, {}), key) for row in rows]
            if any(cells):
                lines.append(f"| {ours} / {native} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _head(heads: Sequence[str]) -> list[str]:
    return [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]


def _median(figure: Mapping[str, Any]) -> str:
    ratio = _ratio(figure, "tensorflow")
    return f"{figure['median_ms']:.1f}" + (f", {ratio}" if ratio else "")


def _ratio(figure: Mapping[str, Any], key: str) -> str:
    return str(Ratio(*figure[key])) if key in figure else ""
