"""How long a server's interpreter stands still, and how late other models' answers come, while a large model loads."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.asking import Asking, asking, configured
from benchmarks.soak.models import MODEL, publish
from benchmarks.soak.servers import ServerProcess, running
from server.arrays import Array
from server.lifecycle.states import State
from tests.packages import WIDTH

Window = tuple[float, float]
"""From when to when, by time.monotonic()."""
_BESIDE = 0.02  # seconds around a gap in which the control's gaps excuse it


@dataclass
class Neighbour:
    """A client of another model that asks a hundred times a second, whatever happens."""

    ask: Asking
    seen: list[tuple[float, float]] = field(default_factory=list)
    """When a request was due and how long it was until its answer."""
    failed: list[Exception] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until told to end."""
        ones = np.ones((1, WIDTH), np.float32)
        due = time.monotonic()
        while not self.ended.wait(max(0.0, due - time.monotonic())):
            try:
                self.ask.predict(MODEL, {"x": ones, "bias": ones})
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the figures
                self.failed.append(error)
            self.seen.append((due, time.monotonic() - due))
            due += 0.01


def stalls(
    folder: Path,
    model: str,
    inputs: Mapping[str, Array],
    *,
    loads: int,
    steady: float,
    server_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Load and run a model in a server whose interpreter is watched, beside a control process.

    One load comes before those that are counted. It is told apart, for it may compile, which later ones need not.

    Args:
        folder: Has the model's package in "models".
        model: Its name.
        inputs: Of one request.
        loads: How often to load it.
        steady: Seconds before the first load, and a fourth of that after each, as moods of machines change.
        server_options: More of the server's command line.
    """
    repository = folder / "models"
    publish(repository, 1)
    ticks, control = folder / "ticks", folder / "control"
    module = ("benchmarks.soak.ticking", str(ticks))
    server = ServerProcess(repository, "--admin", *server_options, module=module)
    calm: list[Window] = []
    loading: list[Window] = []
    runs: list[Window] = []
    with ticking(control), running(server), asking(server.address) as ask, asking(server.address) as other:
        kept, heavy = (configured(name, repository / name) for name in (MODEL, model))
        ask.configure(kept)
        ask.wait_for(model, 1, State.END)
        neighbour = Neighbour(other)
        thread = threading.Thread(target=neighbour.run, name="neighbour")
        thread.start()
        try:
            calm.append(timed(lambda: time.sleep(steady)))
            for _ in range(1 + loads):
                loading.append(timed(lambda: ask.configure(kept, heavy)))
                runs += [timed(lambda: ask.predict(model, inputs)) for _ in range(5)]
                ask.configure(kept)
                ask.wait_for(model, 1, State.END)
                calm.append(timed(lambda: time.sleep(steady / 4)))
        finally:
            neighbour.ended.set()
            thread.join()
    gaps, excuses = read(ticks), read(control)
    first, *loading = loading
    windows = {"steady": calm, "first_load": [first], "loading": loading}
    late = {when: p99(neighbour.seen, each) for when, each in windows.items()}
    late["best_of_loading"] = min(p99(neighbour.seen, [each]) for each in loading)
    return {
        "loads": loads,
        "first_load_seconds": round(first[1] - first[0], 2),
        "load_seconds": round(float(np.median([end - begin for begin, end in loading])), 2),
        "run_seconds": round(float(np.median([end - begin for begin, end in runs])), 3),
        "longest_gap_milliseconds": {
            "steady": worst(gaps, excuses, calm),
            "first_load": worst(gaps, excuses, [first]),
            "loading": worst(gaps, excuses, loading),
            "running": worst(gaps, excuses, runs),
        },
        "neighbour_requests": len(neighbour.seen),
        "neighbour_failed": len(neighbour.failed),
        "neighbour_p99_milliseconds": late,
    }


def timed(action: Any) -> Window:  # noqa: ANN401 - whatever it returns
    """Do something and say when."""
    begin = time.monotonic()
    action()
    return begin, time.monotonic()


@contextmanager
def ticking(path: Path) -> Iterator[None]:
    """A control process for the length of the block."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.soak.ticking", str(path)]) as process:
        try:
            yield
        finally:
            process.kill()


def read(path: Path) -> list[Window]:
    """The gaps that a ticker has written down."""
    pairs = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(float(end) - float(gap), float(end)) for end, gap in pairs]


def worst(gaps: Sequence[Window], excuses: Sequence[Window], windows: Sequence[Window]) -> dict[str, float]:
    """The longest gaps within the windows, in milliseconds.

    Returns:
        "seen", the longest; "beyond_control", the longest less the control's longest at the same time; "typical" and
        "least", the median and the least over the windows of that. Whoever holds the interpreter for long does so each
        time; that a busy machine stops whoever holds it happens now and then.
    """
    seen, own = 0.0, []
    for w_begin, w_end in windows:
        beyond = 0.0
        for begin, end in gaps:
            if begin < w_end and end > w_begin:
                beside = [e - b for b, e in excuses if b < end + _BESIDE and e > begin - _BESIDE]
                seen = max(seen, end - begin)
                beyond = max(beyond, end - begin - max(beside, default=0.0))
        own.append(beyond)
    longest = {"seen": seen, "beyond_control": max(own), "typical": float(np.median(own)), "least": min(own)}
    return {name: round(1e3 * seconds, 1) for name, seconds in longest.items()}


def p99(seen: Sequence[tuple[float, float]], windows: Sequence[Window]) -> float:
    """Of the requests that were due within the windows; there must be some."""
    times = [seconds for due, seconds in seen if any(begin <= due < end for begin, end in windows)]
    return round(1e3 * float(np.percentile(times, 99)), 2)
