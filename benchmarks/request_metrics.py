"""What metrics cost: each request, and each look of Prometheus; `python -m benchmarks.request_metrics` prints both.

A request is timed without its model and its bytes: only what counting it adds. The promise is 15 microseconds at most;
the exit code is 1 if it is not kept.
"""

import argparse
import json
import sys
import timeit
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.machine import describe
from server.calls import Call
from server.engines.choices import SERVE, Choices
from server.histograms import Durations
from server.lifecycle.states import VersionStatus
from server.metrics import Metrics

RESULT = Path(__file__).parent / "results" / "request_metrics.json"
MOST_MICROSECONDS = 15.0
_TRACE = "0af7651916cd43dd8448eb211c80319c"


class _Nobody:
    """The source of a call that came from nowhere."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Nothing."""
        return ()

    def peer(self) -> str:
        """Nobody."""
        return ""


def _call(*, traced: bool) -> Call:
    """A request that has waited for a thread and for a batch."""
    call = Call("tensorflow.serving.PredictionService/Predict", _Nobody())
    call.queued, call.taken, call.checked, call.started = 1.0, 1.001, 1.002, 1.003
    call.run_on("b", 4, (1.003, 1.013))
    call.is_traced, call.trace_id = traced, _TRACE if traced else ""
    return call


def per_request(rounds: int, requests: int) -> dict[str, float]:
    """Seconds that counting a request takes, the best of several rounds: of a plain one, and of one that is traced.

    What its batch counts is in it, as if every request were a batch of its own.
    """
    metrics = Metrics()
    metrics.status_changed("m", VersionStatus(1))
    durations, choices = Durations(), Choices()

    def request_of(call: Call) -> Callable[[], None]:
        def request() -> None:
            durations.observe(0.01)
            choices.spent("b", SERVE, 0.01)
            timer = metrics.timer("m", 1, "serving_default", "b", "Predict", 4)
            timer.ran(call, 1.002, 1.013)
            timer.answered(call, 1.0, 1.013, 1.0131)
            metrics.ended("Predict", "m", "OK")

        return request

    calls = {"request": _call(traced=False), "traced request": _call(traced=True)}
    return {
        name: min(timeit.repeat(request_of(call), number=requests, repeat=rounds)) / requests
        for name, call in calls.items()
    }


def per_look(models: int) -> dict[str, float]:
    """Seconds that making the page takes, and its bytes, with so many models of two backends and three buckets each."""
    metrics = Metrics()
    call = _call(traced=False)
    for number in range(models):
        metrics.status_changed(f"m{number}", VersionStatus(1))
        for backend in ("a", "b"):
            for bucket in (1, 4, 16):
                timer = metrics.timer(f"m{number}", 1, "serving_default", backend, "Predict", bucket)
                timer.ran(call, 1.002, 1.013)
                timer.answered(call, 1.0, 1.013, 1.0131)
    return {"seconds": min(timeit.repeat(metrics.page, number=1, repeat=3)), "bytes": float(len(metrics.page()))}


def too_dear(costs: Mapping[str, float]) -> list[str]:
    """What is wrong with the microseconds of each kind of request, in words."""
    return [
        f"{name}: {cost:.1f} µs is over {MOST_MICROSECONDS:.0f}"
        for name, cost in costs.items()
        if cost > MOST_MICROSECONDS
    ]


def main() -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--models", type=int, nargs="*", default=(1, 20, 100), help="on the pages that are timed")
    parser.add_argument("--result", type=Path, default=RESULT, help="the JSON file")
    options = parser.parse_args()
    costs = {name: 1e6 * seconds for name, seconds in per_request(options.rounds, options.requests).items()}
    looks = {str(models): per_look(models) for models in options.models}
    for name, cost in costs.items():
        print(f"{name}: {cost:.1f} µs (at most {MOST_MICROSECONDS:.0f})")
    for count, look in looks.items():
        print(f"page for {count} models: {1e3 * look['seconds']:.0f} ms, {look['bytes'] / 1e6:.1f} MB")
    options.result.write_text(
        json.dumps({"machine": describe(), "microseconds": costs, "pages": looks}, indent=1) + "\n"
    )
    found = too_dear(costs)
    print("\n".join(found) or "the promise is kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
