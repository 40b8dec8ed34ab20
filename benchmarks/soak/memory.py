"""What a server's memory does over very many requests, and over very many loads and unloads."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.asking import asking, configured
from benchmarks.soak.load import load
from benchmarks.soak.models import MODEL, WIDTH, publish, write_heavy_package
from benchmarks.soak.servers import ServerProcess, running
from server.lifecycle.states import State

# Small ones alone: large requests come and go by megabytes, which would hide what a million leave behind.
_CALLS = [{"spec": {"name": MODEL}}]
_SAMPLE_SECONDS = 0.5
_SERIES = 25  # medians of the samples that are kept for people to look at


def requests(folder: Path, *, warm_up: int, count: int, callers: int = 2) -> dict[str, Any]:
    """Sample the memory of a server while it answers.

    Args:
        folder: Empty.
        warm_up: Requests before the first sample.
        count: Requests while it is sampled.
        callers: Client processes.

    Returns:
        Figures; the slope is of the line fitted through the samples, and "series" is their course.
    """
    publish(folder, 1)
    server = ServerProcess(folder, log=folder / "log")
    samples: list[tuple[int, int]] = []
    with running(server), load([server.address], _CALLS, processes=callers) as made:
        while made.answered < warm_up + count:
            made.order([])  # what requests in work take is no growth
            if made.answered >= warm_up:
                samples.append((made.answered, server.resident_kilobytes()))
            made.order(_CALLS)
            time.sleep(_SAMPLE_SECONDS)
        seen = made.end()
    x, y = np.array(samples, np.float64).T
    kilobytes_per_request = float(np.polyfit(x, y, 1)[0])
    sizes = {"first": samples[0][1], "largest": int(y.max()), "last": samples[-1][1]}
    series = [int(np.median(part)) for part in np.array_split(y, min(_SERIES, len(y)))]
    return {
        "sampled_requests": count,
        "megabytes_per_million_requests": round(1e6 * kilobytes_per_request / 1e3, 3),
        "kilobytes": sizes,
        "series": series,
        **seen.figures(),
    }


def cycles(folder: Path, *, count: int, settled: int, layers: int = 2) -> dict[str, Any]:
    """Load a model of 16 MiB a layer, ask it, and unload it, over and over.

    Args:
        folder: Empty.
        count: How often.
        settled: From which cycle on memory must not grow any more.
        layers: Of the model.
    """
    publish(folder / "models", 1)
    write_heavy_package(folder / "models" / "heavy" / "1", layers)
    server = ServerProcess(folder / "models", "--admin", log=folder / "log")
    kept = configured(MODEL, folder / "models" / MODEL)
    heavy = configured("heavy", folder / "models" / "heavy")
    sizes = []
    with running(server), asking(server.address) as ask:
        for _ in range(count):
            ask.configure(kept)
            ask.wait_for("heavy", 1, State.END)
            sizes.append(server.resident_kilobytes())
            ask.configure(kept, heavy)
            ask.predict("heavy", {"x": np.ones((1, WIDTH), np.float32)})
    window = max(1, min(10, settled // 2))
    before = statistics.median(sizes[settled - window : settled])
    after = statistics.median(sizes[-window:])
    figures = {"first": sizes[0], "when_settled": int(before), "last": int(after)}
    return {"cycles": count, "kilobytes": figures, "growth_percent": round(100 * (after / before - 1), 2)}
