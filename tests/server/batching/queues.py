"""What tests of `server.batching.queue` share: a model whose runs wait when told to, and rows for it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from server.arrays import Array
from server.batching.queue import Batcher
from server.errors import InvalidRequest


class Model:
    """y = 2x, z = -x; remembers its batches, and holds the first run until it is let go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.inputs: list[Array] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """One run; -1 anywhere in the batch is an input that the model refuses."""
        x = feeds["x"]
        self.batches.append(len(x))
        self.entered.set()
        assert self.gate.wait(30)
        self.inputs.append(x)
        if (x == -1).any():
            raise InvalidRequest("minus one")
        return [{"y": 2 * x, "z": -x}[name] for name in outputs]


def rows(*values: float, width: int = 1) -> dict[str, Array]:
    """Feeds of one row per value."""
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


def queued(batcher: Batcher, count: int) -> None:
    """Wait until so many rows wait."""
    with batcher._arrived:
        assert batcher._arrived.wait_for(lambda: batcher._queued_rows >= count, 30)


Submit = Callable[..., Future[list[Array]]]


def busy(batcher: Batcher, model: Model, pool: ThreadPoolExecutor) -> tuple[Future[list[Array]], Submit]:
    """Make the model busy; returns the request that it runs, and a function to submit more that wait."""
    first = pool.submit(batcher.submit, rows(0), ["y"])
    assert model.entered.wait(30)

    def submit(*arguments: Any) -> Future[list[Array]]:
        before = batcher.snapshot().queued_rows
        future = pool.submit(batcher.submit, *arguments)
        queued(batcher, before + 1)
        return future

    return first, submit
