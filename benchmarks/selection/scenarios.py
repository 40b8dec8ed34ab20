"""The frozen scenarios: 19 families times 160 seeds, 3,040 in all.

A test compares their digest with the one written down before any policy was. Whoever changes a family, a seed or how
numbers are drawn changes the world that policies were judged in.
"""

from collections.abc import Iterator

from benchmarks.selection import families
from benchmarks.selection.draw import Draw, stream
from benchmarks.selection.families import Family
from benchmarks.selection.specification import Scenario

FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        families.steady,
        families.crossover,
        families.twins,
        families.spikes,
        families.drift,
        families.degradation,
        families.relay,
        families.cold_caches,
        families.rare_failures,
        families.failure_storm,
        families.not_finite,
        families.noisy_neighbour,
        families.late_arrival,
        families.comes_and_goes,
        families.mix_shift,
        families.sparse,
        families.saturated,
        families.many_backends,
        families.everything,
    )
}
SEEDS = range(160)


def scenario(family: str, seed: int) -> Scenario:
    """One scenario, always the same."""
    return FAMILIES[family](Draw(stream(family, seed)), family, seed)


def frozen(seeds: range = SEEDS) -> Iterator[Scenario]:
    """All scenarios, or those of some seeds."""
    for family in FAMILIES:
        for seed in seeds:
            yield scenario(family, seed)
