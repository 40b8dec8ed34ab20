"""Three times the load that the server can bear: `make overload` prints what becomes of the requests, and writes JSON.

The server is pinned to one core, the client to another. A model that takes at least 20 ms is first asked by a few
callers who wait for their answers, which gives the capacity; then requests come three times as fast, whether answered
or not, each with a deadline. What must hold is in `figures.Limits`; the exit code is 1 if something of it does not.
Nothing else should run.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.load import wait_until_serving
from benchmarks.machine import describe
from benchmarks.overload.client import Client
from benchmarks.overload.figures import Limits, Outcome, verdicts
from benchmarks.verdict import tell
from examples.demo import free_port, wait_until_listening
from server.wire.responses import encode_predict_request
from tests.packages import WIDTH, write_slow_package

RESULT = Path(__file__).parents[1] / "results" / "overload.json"
LEAST_SECONDS = 0.02
_CALLERS = 4


@contextmanager
def pinned_server(folder: Path) -> Iterator[tuple[int, int]]:
    """A server on one core, with this process on the others; its port and process id."""
    cores = sorted(os.sched_getaffinity(0))
    port = free_port()
    command = [sys.executable, "-m", "server", "--repository", str(folder), "--port", str(port)]
    command += ["--backends", "onnxruntime"]
    command += ["--metrics-port", "-1", "--threads", "1", "--poll-seconds", "60"]
    os.sched_setaffinity(0, cores[:1])  # which the child inherits
    try:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    finally:
        os.sched_setaffinity(0, cores[1:] or cores)
    try:
        wait_until_listening(process, port)
        wait_until_serving(port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()
        os.sched_setaffinity(0, cores)


async def _measure(port: int, process: int, request: bytes, seconds: float, deadline: float) -> tuple[Outcome, Outcome]:
    async with Client(port, process, request, deadline) as client:
        await client.closed_loop(_CALLERS, min(5.0, seconds / 3))  # for whatever is slow at first
        capacity = await client.closed_loop(_CALLERS, max(seconds / 4, min(3.0, seconds)))
        return capacity, await client.open_loop(3 * capacity.goodput, seconds)


def measure(seconds: float, deadline: float) -> tuple[Outcome, Outcome]:
    """What the server can do, and what it does at three times that.

    Args:
        seconds: Of the overload.
        deadline: Seconds that each request has.
    """
    request = encode_predict_request({"x": np.ones((1, WIDTH), np.float32)}, name="slow")
    with tempfile.TemporaryDirectory() as name:
        write_slow_package(Path(name) / "slow" / "1", LEAST_SECONDS)
        with pinned_server(Path(name)) as (port, process):
            return asyncio.run(_measure(port, process, request, seconds, deadline))


def show(capacity: Outcome, flood: Outcome, deadline: float) -> None:
    """Print what became of the requests."""
    print(f"capacity {capacity.goodput:.1f} requests/s (a request takes {1000 / capacity.goodput:.1f} ms)")
    offered = flood.sent / flood.seconds
    print(f"offered {offered:.1f} requests/s for {flood.seconds:g} s, each with {deadline:g} s to be answered")
    after = f"{flood.answered_after} more after the end" if flood.answered_after else "none after the end"
    print(f"answered in time {flood.goodput:.1f} requests/s, {after}; p99 {flood.answer_p99:.3f} s")
    times = ", ".join(
        f"{1e3 * seconds:.1f} ms {name}"
        for name, seconds in (
            ("at p50", flood.refusal_p50),
            ("at p99", flood.refusal_p99),
            ("at most", flood.refusal_max),
        )
    )
    print(f"refused when they came: {flood.refused}, in {times}")
    print(f"failed late: {flood.late}; connection lost: {flood.broken}; anything else: {flood.other or 'none'}")
    print(f"{flood.health_checks} health checks, {1e3 * flood.health_p99:.1f} ms at p99")
    step = max(1, len(flood.memory_course_mib) // 8)
    course = ", ".join(f"{mib:.1f} at {seconds:.0f} s" for seconds, mib in flood.memory_course_mib[::step])
    print(f"memory, MiB: {flood.memory_begin_mib:.1f} before, {course}")


def main() -> int:
    """Measure, print, write, judge; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of the overload; the capacity takes a quarter more"
    )
    parser.add_argument("--deadline", type=float, default=1.0, help="of each request, in seconds")
    options = parser.parse_args()
    capacity, flood = measure(options.seconds, options.deadline)
    show(capacity, flood, options.deadline)
    RESULT.parent.mkdir(exist_ok=True)
    share = flood.goodput / capacity.goodput
    said = verdicts(capacity, flood, Limits())
    figures = {
        "deadline": options.deadline,
        "share": share,
        "verdicts": [str(each) for each in said],
        "capacity": asdict(capacity),
        "flood": asdict(flood),
    }
    RESULT.write_text(json.dumps({"machine": describe(), **figures}, indent=1) + "\n")
    return tell(said)


if __name__ == "__main__":
    sys.exit(main())
