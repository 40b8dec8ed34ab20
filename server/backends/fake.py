"""A backend that computes with a Python function instead of a runtime.

It ships so that tests of everything above the backends need no patching; it is never selected for a package.
"""

import threading
from collections.abc import Callable, Mapping, Sequence

from server.arrays import Array
from server.backends.interface import GraphSpec, Precision

Compute = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class FakeGraph:
    """Answers with what the function returns."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self.closed = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Call the function; see LoadedGraph.run."""
        answer = self._compute(inputs)
        return [answer[name] for name in outputs]

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


class FakeBackend:
    """Loads any graph as the function given."""

    precision = Precision.FP32

    def __init__(self, compute: Compute, name: str = "fake") -> None:
        self.name = name
        self._compute = compute
        self.loaded: list[FakeGraph] = []

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """Nothing needs to be made; see Backend.prepare."""

    def load(self, graph: GraphSpec) -> FakeGraph:  # noqa: ARG002 - the interface passes what a fake has no use for
        """Pretend to load; see Backend.load."""
        self.loaded.append(FakeGraph(self._compute))
        return self.loaded[-1]
