"""Times of what runs on a GPU or a processor: by turns, so that what else happens falls on all alike."""

import time
from collections.abc import Callable, Mapping
from typing import Final

import torch

from benchmarks.backends.figures import Ratio, paired_ratio

Run = Callable[[torch.Tensor], torch.Tensor]

_SAMPLE_S: Final = 0.03
_MOST_REPEATS: Final = 100


def seconds(run: Run, images: torch.Tensor, repeats: int) -> float:
    """Of one run, as the mean of some in a row; on a GPU between two events of its own."""
    if images.device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(repeats):
            run(images)
        return (time.perf_counter() - begin) / repeats
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call] # torch's
    torch.cuda.synchronize()
    first.record()
    for _ in range(repeats):
        run(images)
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3 / repeats


def alternate(contenders: Mapping[str, Run], images: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of one run by contender and round, in turning order, after runs that do not count."""
    repeats = {}
    for name, run in contenders.items():
        seconds(run, images, 2)
        repeats[name] = min(_MOST_REPEATS, max(1, int(_SAMPLE_S / seconds(run, images, 1))))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders)
        start = number % len(order)
        turned = order[start:] + order[:start]
        for name in turned if number % 2 == 0 else reversed(turned):
            samples[name].append(seconds(contenders[name], images, repeats[name]))
    return samples


def compared(samples: Mapping[str, list[float]], ours: str, native: str) -> Ratio | None:
    """How many times as fast as the native model ours is, if both ran."""
    if ours not in samples or native not in samples:
        return None
    return paired_ratio(samples[native], samples[ours])
