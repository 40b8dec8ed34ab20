"""Starts contenders and lets one of them run at a time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.backends.models import ROOT
from server.arrays import Array, load_arrays


class ContenderError(Exception):
    """A contender ended; its last words are the message."""


class Contender:
    """A child process that runs one model one way."""

    def __init__(self, name: str, model: str, folder: Path) -> None:
        """Start it and wait until it has loaded.

        Raises:
            ContenderError: it could not.
        """
        self.name = name
        self._folder = folder
        self._log = (folder / f"{name}.log").open("w+")
        command = [sys.executable, "-m", "benchmarks.backends.contender", name, model, str(folder)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        try:
            self.load_seconds = self._read()["ready"]
        except ContenderError:
            self.close()
            raise

    def run(self, batch: int) -> float:
        """Seconds of one run."""
        return self._ask(f"run {batch}")

    def answer(self, batch: int) -> dict[str, Array]:
        """Outputs by alias."""
        file = self._folder / f"{self.name}.answer.npz"
        self._ask(f"answer {batch} {file}")
        return load_arrays(file)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()
        self._log.close()

    def _ask(self, line: str) -> float:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        print(line, file=self._process.stdin, flush=True)
        return self._read()["seconds"]

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None  # noqa: S101 - as above
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            words = self._log.read().strip().splitlines()
            raise ContenderError(f"{self.name}: {words[-1] if words else 'ended without a word'}")
        figures: dict[str, float] = json.loads(line)
        return figures


class Contenders:
    """Some of them, and why the others are not there."""

    def __init__(self, names: Sequence[str], model: str, folder: Path) -> None:
        self.here: dict[str, Contender] = {}
        self.absent: dict[str, str] = {}
        self._stack = ExitStack()
        for name in names:
            try:
                self.here[name] = contender = Contender(name, model, folder)
            except ContenderError as error:
                self.absent[name] = str(error)
            else:
                self._stack.callback(contender.close)

    def __enter__(self) -> Self:
        """They are started already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all."""
        self._stack.close()


def alternate(contenders: Contenders, batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds by contender: one run of each in each round, in turning order, after two that do not count."""
    samples: dict[str, list[float]] = {name: [] for name in contenders.here}
    for contender in contenders.here.values():
        contender.run(batch)
        contender.run(batch)
    for number in range(rounds):
        order = list(contenders.here.values())
        start = number % len(order)
        turned = order[start:] + order[:start]
        for contender in turned if number % 2 == 0 else reversed(turned):
            samples[contender.name].append(contender.run(batch))
    return samples
