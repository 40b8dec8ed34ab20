"""Several `caller` processes at once: orders for all of them, their answers added up."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Seen:
    """What all callers have seen."""

    answered: int = 0
    failed: int = 0
    wrong: int = 0
    texts: list[str] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """For the results."""
        return {
            "requests": self.answered + self.failed,
            "failed": self.failed,
            "wrong": self.wrong,
            "milliseconds": self.milliseconds,
            **({"texts": self.texts} if self.texts else {}),
        }


class Load:
    """Callers that run."""

    def __init__(self, processes: "Sequence[subprocess.Popen[str]]") -> None:
        self._processes = processes
        self._orders = 0
        self.answered = 0
        """Until the last order."""
        self.seen = Seen()

    def order(self, calls: Sequence[dict[str, Any]]) -> None:
        """Have all threads of all callers make these calls from now on; returns when all do so alone."""
        self._orders += 1
        for process in self._processes:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            process.stdin.write(json.dumps({"order": self._orders, "calls": list(calls)}) + "\n")
            process.stdin.flush()
        self.answered = 0
        for process in self._processes:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            confirmed = json.loads(process.stdout.readline())
            assert confirmed["order"] == self._orders, confirmed  # noqa: S101 - there is nothing else to confirm
            self.answered += confirmed["answered"]

    def end(self) -> Seen:
        """End the load; returns what was seen."""
        results = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in self._processes]
        for result in results:
            self.seen.answered += result["answered"]
            self.seen.failed += result["failed"]
            self.seen.wrong += result["wrong"]
            self.seen.texts += result["texts"]
        worst = [1e3 * max(result["seconds"][i] for result in results) for i in range(3)]
        self.seen.milliseconds = dict(zip(("p50", "p99", "longest"), (round(ms, 2) for ms in worst), strict=True))
        return self.seen


@contextmanager
def load(
    addresses: Sequence[str], calls: Sequence[dict[str, Any]], *, processes: int = 2, threads: int = 8
) -> Iterator[Load]:
    """Callers for the length of the block; call `end` within it for what they have seen.

    Args:
        addresses: The servers.
        calls: See `caller`.
        processes: How many callers.
        threads: In each of them.
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes):
            command = [sys.executable, "-m", "benchmarks.soak.caller"]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(command, cwd=_ROOT, env=environment, text=True, **pipes))
        for process in started:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            process.stdin.write(json.dumps({"addresses": list(addresses), "threads": threads}) + "\n")
        made = Load(started)
        made.order(calls)
        yield made
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=60)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
