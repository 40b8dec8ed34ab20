"""`make soak`: every part in turn; each takes less than ten minutes, and what is done already is not done again.

    python -m benchmarks.soak [--again] [PART ...]

Results go to benchmarks/results/soak.json part by part, so that an interrupted soak goes on where it was: what was
measured within a day on a machine like this one is not measured again. The exit code
is 1 if a part has not shown what it must. Figures of latency and of gaps need a machine that does nothing else.
"""

import argparse
import calendar
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.soak import memory, restarts, stalls, switches
from benchmarks.soak.models import convert_vit

RESULT = Path(__file__).parents[1] / "results" / "soak.json"
Figures = dict[str, Any]

_TIME = "%Y-%m-%d %H:%M:%S UTC"
_DAY = 86_400.0
_REQUESTS = 1_000_000
_WARM_UP = 500_000  # until allocators and bounded histories are full: a server of a million more then grew no more


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that the soak shows."""

    run: Callable[[Path], Figures]
    holds: Callable[[Figures], bool]
    """Whether the figures are as they must be."""


def nothing_failed(figures: Figures) -> bool:
    """No request failed, no answer was wrong, every end was in order."""
    return figures["failed"] == figures["wrong"] == 0 and set(figures.get("exit_codes", [0])) == {0}


def run_vit(folder: Path, backend: str) -> Figures:
    """The stalls of ViT-Base in a server that knows one backend."""
    convert_vit(folder / "models", folder)
    image = np.random.default_rng(7).standard_normal((1, 3, 224, 224), np.float32)
    options = ("--backends", backend, "--cache-folder", str(folder / "cache"))
    return stalls.stalls(folder, "vit", {"pixel_values": image}, loads=10, steady=20, server_options=options)


def smooth(figures: Figures) -> bool:
    """Nobody held the interpreter for long, and the other model was hardly late; compiling counts as loading."""
    gaps = {when: gap["beyond_control"] for when, gap in figures["longest_gap_milliseconds"].items()}
    p99 = figures["neighbour_p99_milliseconds"]
    late = max(p99["first_load"], p99["loading"]) / p99["steady"]
    return bool(
        not figures["neighbour_failed"]
        and max(gaps["first_load"], gaps["loading"]) <= 50
        and gaps["running"] <= 10
        and late <= 1.5
    )


PARTS: Mapping[str, Part] = {
    "rolling": Part(
        lambda folder: restarts.rolling(folder, restarts=20, requests=100_000, pause=2.0),
        lambda figures: nothing_failed(figures) and figures["requests"] >= 100_000,
    ),
    "killing": Part(lambda folder: restarts.killing(folder, kills=20, pause=2.0), nothing_failed),
    "switching": Part(
        lambda folder: switches.switching(folder, switches=100),
        lambda figures: nothing_failed(figures) and figures["ended_versions_refused"] == 100,
    ),
    "cycles": Part(
        lambda folder: memory.cycles(folder, count=200, settled=50),
        lambda figures: figures["growth_percent"] <= 5,
    ),
    **{
        f"stalls-{backend}": Part(partial(run_vit, backend=backend), smooth)
        for backend in ("onnxruntime", "openvino", "torch")
    },
    "requests": Part(
        lambda folder: memory.requests(folder, warm_up=_WARM_UP, count=_REQUESTS),
        lambda figures: nothing_failed(figures) and figures["megabytes_per_million_requests"] <= 1,
    ),
}


def is_fresh(result: Figures | None) -> bool:
    """Whether a part was measured within a day, on a machine like this one and with the same libraries."""
    if result is None or result["machine"] != describe():
        return False
    return time.time() - calendar.timegm(time.strptime(result["measured"], _TIME)) < _DAY


def main() -> int:
    """Run the parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--again", action="store_true", help="also parts that were measured within a day")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}")
    results: dict[str, Figures] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    good = True
    for name in options.parts or PARTS:
        if options.again or not is_fresh(results.get(name)):
            with tempfile.TemporaryDirectory(prefix="segue-soak-") as folder:
                figures = PARTS[name].run(Path(folder))
            results[name] = {"measured": time.strftime(_TIME, time.gmtime()), "machine": describe(), "figures": figures}
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
        figures = results[name]["figures"]
        held = PARTS[name].holds(figures)
        good &= held
        print(f"{name}: {'holds' if held else 'DOES NOT HOLD'}: {json.dumps(figures)}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
