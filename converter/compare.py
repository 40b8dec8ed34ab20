"""All backends on one package, side by side on this machine: how long they take, and how near to TensorFlow they are.

They take turns, a round of each, so that whatever else the machine does strikes all alike.
"""

import csv
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from converter.errors import InputsRejected
from server.arrays import Array
from server.backends.interface import Backend, Precision
from server.engines.engine import Engine, close_all, load_engine
from server.engines.proof import golden_of
from server.errors import LeftToOthers, SegueError
from server.repository.package import Package
from server.signatures import ServedSignature

_WARM = 2  # runs of each size that are not counted
_NEVER = threading.Event()


class Listener(Protocol):
    """Is told what is being done, since it takes a while."""

    def step(self, words: str) -> None:
        """What begins now."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """One backend at one batch size.

    Attributes:
        backend: Its name.
        precision: What it computes in.
        batch: Rows.
        seconds: Of each run, in order.
        difference: The largest difference from TensorFlow's golden answers, over all outputs.
    """

    backend: str
    precision: Precision
    batch: int
    seconds: tuple[float, ...]
    difference: float

    def quantile(self, share: float) -> float:
        """Seconds that a share of the runs did not exceed."""
        return float(np.quantile(self.seconds, share))

    @property
    def median(self) -> float:
        """Seconds."""
        return self.quantile(0.5)

    @property
    def rows_per_second(self) -> float:
        """At the median."""
        return self.batch / self.median


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured, and who could not take part, with the reason."""

    signature: str
    timings: tuple[Timing, ...]
    rejected: Mapping[str, str]

    def fastest(self, batch: int) -> Timing:
        """The backend with the least median at a size."""
        return min((timing for timing in self.timings if timing.batch == batch), key=lambda timing: timing.median)

    def ratio(self, timing: Timing) -> tuple[float, float, float]:
        """How many times as fast as the first backend: the median of the paired ratios, and its 95 % interval."""
        first = next(one for one in self.timings if one.batch == timing.batch)
        ratios = np.array(first.seconds) / np.array(timing.seconds)
        draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
        return float(np.median(ratios)), float(low), float(high)


def compare(
    package: Package,
    backends: Sequence[Backend],
    *,
    signature: str,
    batches: Sequence[int],
    rounds: int,
    inputs: Mapping[str, Array] | None,
    listener: Listener,
) -> Comparison:
    """Load and prove a package in every backend, and time each at every size.

    Args:
        package: What to run.
        backends: The first is what the others are compared with.
        signature: Its name.
        batches: Rows.
        rounds: Counted runs of each backend at each size.
        inputs: Arrays by alias whose rows are repeated to each size; None takes the golden inputs.
        listener: Is told what is being done.

    Raises:
        InputsRejected: There are no inputs of a wanted size.
        SegueError: No backend takes part: what the first said.
    """
    feeds = {batch: _feeds(package, signature, batch, inputs) for batch in batches}
    rejected: dict[str, str] = {}
    with _engines(package, backends, batches, rejected, listener) as engines:
        timings = [
            timing
            for batch in batches
            for timing in _time(
                _taking(engines, package, signature, feeds[batch], rejected),
                *(package, signature, feeds[batch]),
                rounds=rounds,
                listener=listener,
            )
        ]
    return Comparison(signature, tuple(timings), rejected)


@contextmanager
def _engines(
    package: Package,
    backends: Sequence[Backend],
    sizes: Sequence[int],
    rejected: dict[str, str],
    listener: Listener,
) -> Iterator[list[Engine]]:
    engines: list[Engine] = []
    first: SegueError | None = None
    try:
        for backend in backends:
            listener.step(f"{backend.name}: preparing, loading, proving")
            try:
                engines.append(load_engine(package, backend, sizes, _NEVER, may_leave=True))
            except SegueError as error:
                rejected[backend.name] = error.message
                first = first or error
        if not engines and first is not None:
            raise first
        yield engines
    finally:
        close_all(engines)


def _taking(
    engines: Sequence[Engine],
    package: Package,
    signature: str,
    feeds: Mapping[str, Array],
    rejected: dict[str, str],
) -> Sequence[Engine]:
    """Those that do not leave such a batch to others; why the rest does is added to the rejected."""
    file, outputs = _graph(package, signature)
    rows = max(array.shape[0] for array in feeds.values())
    taking: list[Engine] = []
    for place, engine in enumerate(engines, 1):
        try:
            engine.graphs[file].run(feeds, outputs)
        except LeftToOthers as error:
            rejected[f"{engine.backend} with {rows} rows"] = error.message
            if place == len(engines) and not taking:
                raise
        else:
            taking.append(engine)
    return taking


def _graph(package: Package, signature: str) -> tuple[str, list[str]]:
    """A signature's file and its outputs' ONNX names."""
    message = next(each for each in package.manifest.signatures if each.name == signature)
    return message.onnx_file, list(ServedSignature(message).outputs.values())


def _time(
    engines: Sequence[Engine],
    package: Package,
    signature: str,
    feeds: Mapping[str, Array],
    *,
    rounds: int,
    listener: Listener,
) -> list[Timing]:
    file, outputs = _graph(package, signature)
    graphs = [engine.graphs[file] for engine in engines]
    batch = max(array.shape[0] for array in feeds.values())
    seconds: list[list[float]] = [[] for _ in engines]
    for number in range(_WARM + rounds):
        listener.step(f"batch {batch}: round {max(0, number - _WARM) + 1} of {rounds}")
        for graph, times in zip(graphs, seconds, strict=True):
            begin = time.perf_counter()
            graph.run(feeds, outputs)
            times.append(time.perf_counter() - begin)
    return [
        Timing(engine.backend, engine.precision, batch, tuple(times[_WARM:]), _difference(engine, signature))
        for engine, times in zip(engines, seconds, strict=True)
    ]


def _difference(engine: Engine, signature: str) -> float:
    return max((p.difference.max_absolute for p in engine.proofs if p.signature == signature), default=0.0)


def _feeds(package: Package, signature: str, batch: int, inputs: Mapping[str, Array] | None) -> Mapping[str, Array]:
    message = next(each for each in package.manifest.signatures if each.name == signature)
    served = ServedSignature(message)
    if inputs is not None:
        rows = min((array.shape[0] for array in inputs.values() if array.ndim), default=0)
        if not rows:
            raise InputsRejected("The inputs have no rows.", "Each array needs a first dimension of one row or more.")
        return served.bind({alias: array[np.arange(batch) % rows] for alias, array in inputs.items()})
    case = golden_of(message, package.golden_arrays(), batch)
    if case is None:
        sizes = ", ".join(str(golden.batch) for golden in message.golden)
        raise InputsRejected(
            f"There are no golden inputs of {batch} rows for {signature!r}, whose rows must not be joined; there are "
            f"some of {sizes}.",
            "Choose among those with --batches, or give inputs of your own with --inputs.",
        )
    return served.bind(case[0])


def write_csv(path: Path, comparison: Comparison) -> None:
    """One line for each backend and size; times in milliseconds."""
    heading = ("signature", "batch", "backend", "precision", "runs", "median_ms", "p05_ms", "p95_ms", "rows_per_second")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*heading, "times_first", "times_first_low", "times_first_high", "max_abs_difference"))
        for timing in comparison.timings:
            milliseconds = [f"{1e3 * timing.quantile(share):.4f}" for share in (0.5, 0.05, 0.95)]
            writer.writerow(
                (
                    *(comparison.signature, timing.batch, timing.backend, timing.precision.value, len(timing.seconds)),
                    *milliseconds,
                    f"{timing.rows_per_second:.2f}",
                    *(f"{ratio:.4f}" for ratio in comparison.ratio(timing)),
                    f"{timing.difference:.3e}",
                )
            )
