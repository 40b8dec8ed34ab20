"""Three times the load that the server can bear: `make overload` prints what becomes of the requests, and writes JSON.

The server is pinned to one core, the client to another. A model that takes at least 20 ms is first asked by a few
callers who wait for their answers, which gives the capacity; then requests come three times as fast, whether answered
or not, each with a deadline. Nothing else should run.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.load import wait_until_serving
from benchmarks.machine import describe
from examples.demo import free_port, wait_until_listening
from server.wire.responses import encode_predict_request
from tests.packages import WIDTH, write_slow_package

RESULT = Path(__file__).parent / "results" / "overload.json"
METHOD = "/tensorflow.serving.PredictionService/Predict"
LEAST_SECONDS = 0.02
OK = grpc.StatusCode.OK
REFUSED = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})


@dataclass
class Outcome:
    """What became of the requests of one phase. Times are in seconds."""

    seconds: float
    sent: int = 0
    answered: int = 0
    refused: int = 0
    other: dict[str, int] = field(default_factory=dict)
    refusal_p50: float = 0.0
    refusal_p99: float = 0.0
    answer_p50: float = 0.0
    answer_p99: float = 0.0
    health_checks: int = 0
    health_not_serving: int = 0
    health_p99: float = 0.0
    memory_begin_mib: float = 0.0
    memory_end_mib: float = 0.0

    @property
    def goodput(self) -> float:
        """Requests answered within their deadline, per second."""
        return self.answered / self.seconds


class Client:
    """Sends requests and health checks to one server, and notes what becomes of them."""

    def __init__(self, port: int, request: bytes, deadline: float) -> None:
        options = [("grpc.enable_retries", 0)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._predict: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._request = request
        self._deadline = deadline
        self._results: list[tuple[grpc.StatusCode, float]] = []
        self._checks: list[tuple[bool, float]] = []

    async def one(self) -> None:
        """Send one request and wait for what becomes of it."""
        begin = time.perf_counter()
        call = self._predict(self._request, timeout=self._deadline)
        code = await call.code()
        self._results.append((code, time.perf_counter() - begin))

    async def check(self, end: float) -> None:
        """Ask for the server's health ten times in a second."""
        while time.perf_counter() < end:
            begin = time.perf_counter()
            reply = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._deadline)
            serving = reply.status == health_pb2.HealthCheckResponse.SERVING
            self._checks.append((serving, time.perf_counter() - begin))
            await asyncio.sleep(0.1)

    async def closed_loop(self, callers: int, seconds: float) -> Outcome:
        """So many callers send a request when the one before is answered."""
        end = time.perf_counter() + seconds

        async def caller() -> None:
            while time.perf_counter() < end:
                await self.one()

        await asyncio.gather(*[caller() for _ in range(callers)])
        return self.outcome(seconds)

    async def open_loop(self, rate: float, seconds: float) -> Outcome:
        """Requests at a fixed rate, with health checks beside them."""
        begin = time.perf_counter()
        end = begin + seconds
        checking = asyncio.create_task(self.check(end))
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while (now := time.perf_counter()) < end:
            while begin + number / rate <= now:
                task = asyncio.create_task(self.one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        await asyncio.gather(*tasks, checking)
        return self.outcome(seconds)

    def outcome(self, seconds: float) -> Outcome:
        """What the requests since the last call became."""
        result = Outcome(seconds, sent=len(self._results), health_checks=len(self._checks))
        answers = sorted(taken for code, taken in self._results if code is OK)
        refusals = sorted(taken for code, taken in self._results if code in REFUSED)
        result.answered, result.refused = len(answers), len(refusals)
        for code, _ in self._results:
            if code is not OK and code not in REFUSED:
                result.other[code.name] = result.other.get(code.name, 0) + 1
        result.answer_p50, result.answer_p99 = _percentiles(answers)
        result.refusal_p50, result.refusal_p99 = _percentiles(refusals)
        result.health_p99 = _percentiles(sorted(taken for _, taken in self._checks))[1]
        result.health_not_serving = sum(not serving for serving, _ in self._checks)
        self._results.clear()
        self._checks.clear()
        return result


def _percentiles(ordered: list[float]) -> tuple[float, float]:
    return (statistics.median(ordered), ordered[len(ordered) * 99 // 100]) if ordered else (0.0, 0.0)


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


def _memory_mib(pid: int) -> float:
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


async def _measure(port: int, pid: int, request: bytes, seconds: float, deadline: float) -> tuple[Outcome, Outcome]:
    client = Client(port, request, deadline)
    await client.closed_loop(4, min(5.0, seconds))  # for whatever is slow at first
    capacity = await client.closed_loop(4, seconds / 4)
    memory = _memory_mib(pid)
    flood = await client.open_loop(3 * capacity.goodput, seconds)
    flood.memory_begin_mib, flood.memory_end_mib = memory, _memory_mib(pid)
    return capacity, flood


def measure(seconds: float, deadline: float) -> tuple[Outcome, Outcome]:
    """What the server can do, and what it does at three times that."""
    request = encode_predict_request({"x": np.ones((1, WIDTH), np.float32)}, name="slow")
    with tempfile.TemporaryDirectory() as name:
        write_slow_package(Path(name) / "slow" / "1", LEAST_SECONDS)
        with pinned_server(Path(name)) as (port, pid):
            return asyncio.run(_measure(port, pid, request, seconds, deadline))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--deadline", type=float, default=1.0, help="of each request, in seconds")
    options = parser.parse_args()
    capacity, flood = measure(options.seconds, options.deadline)
    share = flood.goodput / capacity.goodput
    print(f"capacity {capacity.goodput:.1f} requests/s (a request takes {1000 / capacity.goodput:.1f} ms)")
    print(f"offered {flood.sent / flood.seconds:.1f} requests/s, each with {options.deadline:g} s to be answered")
    print(f"answered in time {flood.goodput:.1f} requests/s: {share:.1%} of capacity; p99 {flood.answer_p99:.3f} s")
    print(
        f"refused {flood.refused}, in {1e3 * flood.refusal_p50:.1f} ms at p50, {1e3 * flood.refusal_p99:.1f} ms at p99"
    )
    print(f"anything else: {flood.other or 'none'}")
    health = f"{flood.health_checks} health checks, {flood.health_not_serving} not SERVING"
    print(f"{health}, p99 {1e3 * flood.health_p99:.1f} ms")
    print(f"memory {flood.memory_begin_mib:.1f} MiB before, {flood.memory_end_mib:.1f} MiB after")
    RESULT.parent.mkdir(exist_ok=True)
    figures = {"deadline": options.deadline, "share": share, "capacity": asdict(capacity), "flood": asdict(flood)}
    RESULT.write_text(json.dumps({"machine": describe(), **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
