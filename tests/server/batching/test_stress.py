"""The queue under many threads: whatever happens to others, each answer belongs to its own request."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from server.arrays import Array
from server.batching.parameters import BatchingParameters
from server.batching.queue import Batcher
from server.errors import CancelledInQueue, ExpiredInQueue, InvalidRequest, QueueFull, SegueError

THREADS, REQUESTS = 32, 60
REFUSED = -1.0

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "several at once": {"num_batch_threads": 3},
    "sizes": {"allowed_batch_sizes": (2, 4, 16)},
    "a delay": {"batch_timeout_micros": 300, "num_batch_threads": 2},
    "splitting": {"enable_large_batch_splitting": True, "largest_request": 40, "max_batch_size": 8},
    "pieces beside each other": {"enable_large_batch_splitting": True, "max_batch_size": 4, "num_batch_threads": 3},
    "large requests as they are": {"max_batch_size": 4, "num_batch_threads": 2},
    "a short queue": {"max_enqueued_batches": 1},
    "any length": {"pad_variable_length_inputs": True, "allowed_batch_sizes": (16,)},
}


def run(feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """Each row's first element, doubled or negated, and the rows it came with; refuses a batch that has a -1."""
    time.sleep(0.0005)  # a run lets others arrive
    x = feeds["x"][:, 0]
    if (x == REFUSED).any():
        raise InvalidRequest("a row is refused")
    return [{"double": 2 * x, "minus": -x}[name] for name in outputs]


def one_request(batcher: Batcher, random: np.random.Generator) -> str:
    """Send a random request and check what comes of it; returns how it ended."""
    count, width = int(random.integers(1, 40 if random.random() < 0.1 else 6)), int(random.integers(1, 3))
    x = random.integers(0, 1 << 20, (count, width)).astype(np.float32)
    refused = bool(random.random() < 0.05)
    if refused:
        x[random.integers(count), 0] = REFUSED
    outputs = [["double"], ["minus", "double"]][random.integers(2)]
    deadline = time.monotonic() + (random.random() * 0.004 if random.random() < 0.1 else 60)
    gone = bool(random.random() < 0.1)
    try:
        answers = batcher.submit({"x": x}, outputs, deadline, lambda: gone)
    except InvalidRequest:
        return "refused" if refused else "refused for another's row"
    except SegueError as error:
        return type(error).__name__
    assert not refused
    expected = {"double": 2 * x[:, 0], "minus": -x[:, 0]}
    for name, answer in zip(outputs, answers, strict=True):
        assert answer.tolist() == expected[name].tolist()
    return "answered"


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_answer_belongs_to_its_request(variant: str) -> None:
    """32 threads, random sizes and forms, deadlines, cancellations and refused rows; nothing is lost, nothing mixed."""
    batcher = Batcher(run, BatchingParameters(**VARIANTS[variant]))
    ready = threading.Barrier(THREADS)

    def client(seed: int) -> list[str]:
        random = np.random.default_rng(seed)
        ready.wait(30)
        return [one_request(batcher, random) for _ in range(REQUESTS)]

    with ThreadPoolExecutor(THREADS) as pool:
        ends = [end for found in pool.map(client, range(THREADS), timeout=120) for end in found]
    allowed = {"answered", "refused", *(kind.__name__ for kind in (ExpiredInQueue, CancelledInQueue))}
    if variant in {"a short queue", "splitting"}:
        allowed.add(QueueFull.__name__)
    assert set(ends) <= allowed
    assert ends.count("answered") > 0.5 * len(ends) or variant == "a short queue"
    found = batcher.snapshot()
    assert found.queued_rows == 0
    assert batcher._running == 0
    assert found.rows > sum(found.runs)
    if variant == "sizes":
        assert found.padding > 0
