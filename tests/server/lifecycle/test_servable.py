"""Tests of `server.lifecycle.servable` that need no runtime: the backend is the fake that ships with the server."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from server.arrays import Array
from server.backends.fake import FakeBackend
from server.batching.parameters import BatchingParameters
from server.engines.engine import load_engine
from server.errors import ProofFailed, TooLate
from server.lifecycle.servable import Servable, load_servable
from server.repository.package import open_package
from tests.packages import write_manifest, write_package


def right(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """What the package's graph computes."""
    y = 2 * feeds["x_in"] + 1 + feeds["bias_in"]
    return {"y_out": y, "z_out": -y}


def wrong(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """The same, but wrong where batches are large: as a backend that was never asked for such."""
    y = 2 * feeds["x_in"] + (1 if len(feeds["x_in"]) < 8 else 2) + feeds["bias_in"]
    return {"y_out": y.astype(np.float32), "z_out": -y.astype(np.float32)}


def test_a_proved_backend_serves(tmp_path: Path) -> None:
    """Every output of every golden case is compared before the version is there; its graphs live until it is closed."""
    write_package(tmp_path / "1")
    backend = FakeBackend(right)
    servable = load_servable(open_package("affine", 1, tmp_path / "1"), backend).servable
    assert [(proof.output, proof.difference.max_absolute) for proof in servable.proofs] == [("y", 0.0), ("z", 0.0)]
    assert not backend.loaded[0].closed
    servable.close()
    assert backend.loaded[0].closed


def sizes_tried(folder: Path, *, derived: bool) -> list[int]:
    """Rows of the batches that loading a package runs, in order."""
    manifest = write_package(folder)
    manifest.signatures[0].batching.derived = derived
    write_manifest(folder, manifest)
    tried: list[int] = []

    def compute(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        tried.append(len(feeds["x_in"]))
        return right(feeds)

    package = open_package("affine", 1, folder)
    servable = load_servable(package, FakeBackend(compute), BatchingParameters(max_batch_size=8)).servable
    assert bool(servable.batchers) is derived
    servable.close()
    return tried


@pytest.mark.parametrize(
    ("rows", "parameters", "is_run"),
    [
        (2, BatchingParameters(max_batch_size=4), True),
        (5, BatchingParameters(max_batch_size=4), False),
        (2, BatchingParameters(max_batch_size=4, batch_timeout_micros=1000), False),
    ],
)
def test_what_must_not_run_at_once_is_not(
    tmp_path: Path, rows: int, parameters: BatchingParameters, *, is_run: bool
) -> None:
    """A request in a hurry meets the same limits as others: larger than a batch, or to be joined, it has to queue."""
    write_package(tmp_path / "m" / "1")
    package = open_package("m", 1, tmp_path / "m" / "1")
    servable = load_servable(package, FakeBackend(right), parameters).servable
    signature = servable.signature("")
    feeds = {"x_in": np.ones((rows, 4), np.float32), "bias_in": np.zeros((rows, 4), np.float32)}
    answers = servable.run_now(signature, feeds, ["y_out"])
    assert (answers is not None) == is_run
    servable.close()


def test_the_backend_is_warm_for_every_size(tmp_path: Path) -> None:
    """Golden cases first, then the sizes that batches may have and no golden case had."""
    assert sizes_tried(tmp_path / "1", derived=True) == [1, 3, 2, 4, 8]


def test_rows_that_were_only_seen_to_keep_apart_are_not_joined(tmp_path: Path) -> None:
    """Packages of older converters are served as before, request by request."""
    assert sizes_tried(tmp_path / "1", derived=False) == [1, 3]


def test_every_size_of_a_batch_is_proved_too(tmp_path: Path) -> None:
    """A backend that errs on the batches that will be run does not serve, and holds nothing after that."""
    write_package(tmp_path / "1")
    package = open_package("affine", 1, tmp_path / "1")
    load_servable(package, FakeBackend(wrong)).servable.close()
    backend = FakeBackend(wrong)
    with pytest.raises(ProofFailed, match="The backend fake does not reproduce TensorFlow's answer for output 'y'"):
        load_servable(package, backend, BatchingParameters(max_batch_size=8))
    assert backend.loaded[0].closed


class Clock:
    """Stands until a run moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.run_seconds = 1.0
        self.runs = 0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def compute(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Take time, and answer."""
        self.now += self.run_seconds
        self.runs += 1
        return right(feeds)


@pytest.fixture
def clock() -> Clock:
    """For a servable and its graph."""
    return Clock()


def slow(folder: Path, clock: Clock, batching: BatchingParameters | None = None) -> Servable:
    """A version whose runs move the clock, and that has answered twenty requests."""
    write_package(folder / "1")
    package = open_package("affine", 1, folder / "1")
    servable = Servable(package, load_engine(package, FakeBackend(clock.compute)), batching, clock=clock)
    for _ in range(20):
        ask(servable, clock, math.inf)
    return servable


def ask(servable: Servable, clock: Clock, seconds: float, rows: int = 1) -> list[Array]:
    """One request with so much time."""
    feeds = {"x_in": np.ones((rows, 4), np.float32), "bias_in": np.zeros((rows, 4), np.float32)}
    return servable.run(servable.signature(""), feeds, ["y_out"], clock.now + seconds)


def test_a_lone_request_that_would_end_too_late_is_refused_at_once(tmp_path: Path, clock: Clock) -> None:
    """It costs no run, and is told what the queue tells; one that has the time is answered."""
    servable = slow(tmp_path, clock)
    runs, now = clock.runs, clock.now
    with pytest.raises(
        TooLate, match=r"^0 requests for affine go first: it would take 1\.000 s, and 0\.500 s are left$"
    ):
        ask(servable, clock, 0.5)
    assert (clock.runs, clock.now) == (runs, now)
    assert ask(servable, clock, 1.5)
    assert ask(servable, clock, 0.5, rows=1000), "nothing is known of requests of this size"
    servable.close()


def test_a_model_that_has_become_faster_is_noticed(tmp_path: Path, clock: Clock) -> None:
    """Of requests that all seem too late one of eight is run: from then on the others are answered too."""
    servable = slow(tmp_path, clock)
    clock.run_seconds = 0.01
    refused = 0
    for _ in range(50):
        try:
            ask(servable, clock, 0.5)
        except TooLate:
            refused += 1
    assert refused == 7
    servable.close()


def test_requests_that_may_be_joined_are_the_queues_to_judge(tmp_path: Path, clock: Clock) -> None:
    """They are refused where they wait: see admission.py."""
    servable = slow(tmp_path, clock, BatchingParameters(max_batch_size=4))
    assert servable.batchers
    assert ask(servable, clock, 0.5)
    servable.close()
