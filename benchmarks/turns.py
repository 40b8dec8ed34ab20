"""Contenders that take turns: each is loaded all the time and answers a fixed number of requests while the others wait.

A fixed number, because requests of a fifth of a second do not fit into a fixed time: the time counts until the last
answer, and a machine that slows down for a while slows down the turns beside each other alike.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a contender.

    Attributes:
        requests: How many.
        seconds: From the begin to the last answer.
        p50: Seconds of the median request.
    """

    requests: int
    seconds: float
    p50: float

    @property
    def each(self) -> float:
        """Seconds for each request. In a closed loop the mean latency is so many times that as there are callers."""
        return self.seconds / self.requests


def closed_loop(call: Callable[[int], object], callers: int, requests: int) -> Turn:
    """So many callers share so many calls; each begins its next one when the one before has ended.

    Args:
        call: Makes a call, told which caller does so.
        callers: How many threads.
        requests: How many calls in all.
    """
    left = iter(range(requests))
    lock = threading.Lock()
    begun: list[float] = []
    ready = threading.Barrier(callers, action=lambda: begun.append(time.perf_counter()))

    def caller(number: int) -> list[tuple[float, float]]:
        ready.wait()
        calls: list[tuple[float, float]] = []
        while True:
            with lock:
                if next(left, None) is None:
                    return calls
            begin = time.perf_counter()
            call(number)
            calls.append((begin, time.perf_counter()))

    with ThreadPoolExecutor(callers) as pool:
        working = [pool.submit(caller, number) for number in range(callers)]
        calls = [one for each in working for one in each.result()]
    last = max(end for _, end in calls)
    return Turn(len(calls), last - begun[0], median(end - begin for begin, end in calls))


def take_turns(call: Callable[[int], object]) -> None:
    """What a contender's process does: a turn for each line of standard input, "CALLERS REQUESTS"."""
    print("ready", flush=True)
    for line in sys.stdin:
        callers, requests = map(int, line.split())
        turn = closed_loop(call, callers, requests)
        print(json.dumps([turn.requests, turn.seconds, turn.p50]), flush=True)


class Contender:
    """A process that does `take_turns`."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start `python -m ARGUMENTS` and wait until it is ready.

        Raises:
            RuntimeError: it has ended.
        """
        self._name = " ".join(arguments)
        command = [sys.executable, "-m", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def turn(self, callers: int, requests: int) -> Turn:
        """Have it take one.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        print(callers, requests, file=self._process.stdin, flush=True)
        return Turn(*json.loads(self._read()))

    def _read(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - as above
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            raise RuntimeError(f"{self._name} ended with {self._process.returncode}")
        return line

    def __enter__(self) -> Self:
        """It is started already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it end."""
        self._process.communicate()


Cell = tuple[Contender, int, int]
"""Who, by how many callers, how many requests."""


def rounds(cells: Mapping[str, Cell], seconds: float, least: int = 5, before: int = 1) -> dict[str, list[Turn]]:
    """As many rounds as fit into the time, a turn of each in each, in turning order, after some that do not count."""
    turns: dict[str, list[Turn]] = {name: [] for name in cells}
    for contender, callers, requests in [*cells.values()] * before:
        contender.turn(callers, requests)
    end = time.monotonic() + seconds
    number = 0
    while number < least or time.monotonic() < end:
        for name in turned(list(cells), number):
            contender, callers, requests = cells[name]
            turns[name].append(contender.turn(callers, requests))
        number += 1
    return turns


def turned(names: list[str], number: int) -> list[str]:
    """The order of a round: another begins each time, and every second round goes backwards."""
    start = number % len(names)
    order = names[start:] + names[:start]
    return order if number % 2 == 0 else order[::-1]
