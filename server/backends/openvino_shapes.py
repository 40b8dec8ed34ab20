"""Whether shapes fit a graph, found out before OpenVINO's plug-in is given them.

Seen on 2026.4.1: when the plug-in meets shapes that do not fit in the middle of a run, it says so and keeps what it has
worked out for the operators up to there; later runs may then be refused, or answered wrongly. The same library's
inference of shapes on the graph itself has no such memory. It takes 6 ms for ViT-Base and 30 ms for EfficientNet-B0, so
what fitted is remembered.

Nothing here imports openvino: the graph is handed in.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from server.arrays import Array

REMEMBERED: Final = 1024  # combinations of shapes

Infer = Callable[[Mapping[str, tuple[int, ...]]], None]
"""Raises if the shapes, by input, do not fit."""

_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class FittingShapes:
    """The combinations of shapes that were found to fit, the latest ones first to stay."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer
        self._fitting: OrderedDict[_Shapes, None] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Raise what `infer` raises, if it has not been asked about these shapes lately."""
        shapes = tuple((name, array.shape) for name, array in sorted(inputs.items()))
        with self._lock:
            if shapes in self._fitting:
                self._fitting.move_to_end(shapes)
                return
            self._infer(dict(shapes))
            self._fitting[shapes] = None
            if len(self._fitting) > REMEMBERED:
                self._fitting.popitem(last=False)
