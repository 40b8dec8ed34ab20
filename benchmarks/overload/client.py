"""The client of an overload: sends requests and health checks, and notes what becomes of them."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.load import METHOD
from benchmarks.overload.figures import Outcome, Request, outcome, percentile

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_CHECK_SECONDS: Final = 0.1
_LOOKS: Final = 40
"""At the server's memory during a phase."""


@dataclass
class Watched:
    """What was seen of the server during a phase, beside its requests."""

    checks: list[tuple[bool, float]] = field(default_factory=list)
    """Whether it said SERVING, and after how many seconds."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the begin, and MiB."""


class Client:
    """A client of one server."""

    def __init__(self, port: int, process: int, request: bytes, deadline: float) -> None:
        """Connect.

        Args:
            port: The server's.
            process: The server's, whose memory is looked at.
            request: What to send.
            deadline: Seconds that each request has.
        """
        options = [("grpc.enable_retries", 0)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._predict: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._process = process
        self._request = request
        self._deadline = deadline
        self._seen: list[Request] = []

    async def __aenter__(self) -> Self:
        """It is connected already."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._channel.close()

    async def one(self) -> None:
        """Send one request and wait for what becomes of it."""
        begin = time.perf_counter()
        call = self._predict(self._request, timeout=self._deadline)
        code = await call.code()
        end = time.perf_counter()
        self._seen.append(Request(begin, end, code.name, await call.details() or ""))

    async def closed_loop(self, callers: int, seconds: float) -> Outcome:
        """So many callers send a request when the one before is answered."""
        begin = time.perf_counter()

        async def caller() -> None:
            while time.perf_counter() < begin + seconds:
                await self.one()

        await asyncio.gather(*[caller() for _ in range(callers)])
        return self._outcome(begin, seconds)

    async def open_loop(self, rate: float, seconds: float) -> Outcome:
        """Requests at a fixed rate, whether answered or not, with looks at health and memory beside them."""
        before = memory_mib(self._process)
        watched = Watched()
        begin = time.perf_counter()
        end = begin + seconds
        beside = [asyncio.create_task(self._check(watched, end)), asyncio.create_task(self._look(watched, begin, end))]
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while (now := time.perf_counter()) < end:
            while begin + number / rate <= now:
                task = asyncio.create_task(self.one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        await asyncio.gather(*tasks, *beside)
        result = self._outcome(begin, seconds)
        result.memory_begin_mib, result.memory_course_mib = before, watched.memory
        result.health_checks = len(watched.checks)
        result.health_not_serving = sum(not serving for serving, _ in watched.checks)
        result.health_p99 = percentile(sorted(taken for _, taken in watched.checks), 99)
        return result

    async def _check(self, watched: Watched, end: float) -> None:
        """Ask for the server's health ten times in a second. No answer is not SERVING."""
        while (begin := time.perf_counter()) < end:
            try:
                reply = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._deadline)
                serving = reply.status == _SERVING
            except grpc.aio.AioRpcError:
                serving = False
            watched.checks.append((serving, time.perf_counter() - begin))
            await asyncio.sleep(_CHECK_SECONDS)

    async def _look(self, watched: Watched, begin: float, end: float) -> None:
        """Look at the server's memory now and then."""
        pause = max(0.05, (end - begin) / _LOOKS)
        while (now := time.perf_counter()) < end:
            watched.memory.append((round(now - begin, 2), round(memory_mib(self._process), 2)))
            await asyncio.sleep(pause)

    def _outcome(self, begin: float, seconds: float) -> Outcome:
        result = outcome(self._seen, begin, seconds)
        self._seen.clear()
        return result


def memory_mib(process: int) -> float:
    """What a process holds (RSS) now."""
    fields = Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024
