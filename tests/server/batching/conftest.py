"""A model and threads for tests of batching."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.batching.queues import Model


@pytest.fixture
def model() -> Model:
    """A model."""
    return Model()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for requests."""
    with ThreadPoolExecutor(32) as made:
        yield made
