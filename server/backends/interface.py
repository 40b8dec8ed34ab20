"""What a backend is. Pause before you change this: every runtime, the proofs and the tests stand on it.

A backend turns an ONNX file into something that runs; it knows nothing of requests, models or versions.
"""

import enum
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from server.arrays import Array


class Precision(enum.StrEnum):
    """What a backend computes in, where the graph says float32."""

    FP32 = "fp32"
    TF32 = "tf32"  # float32 whose products take 10 bits of each number: of NVIDIA's GPUs
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True, slots=True)
class TensorPort:
    """A graph's input or output: its ONNX name and its dtype as a tensorflow.DataType number."""

    name: str
    dtype: int


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One ONNX file and the ports that the model package says it has."""

    path: Path
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]
    digest: str = ""
    """SHA-256 in hex of the file, by the manifest: the name of what is made from it and kept."""


class LoadedGraph(Protocol):
    """A graph in memory. `run` may be called from several threads at once and releases the GIL while it computes."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Answer for one batch.

        Args:
            inputs: an array for every input port, by ONNX name, with the port's dtype; strings are objects of bytes.
            outputs: ONNX names of the outputs wanted; the answer has the same order.

        Raises:
            InvalidRequest: the runtime says that the input does not fit the graph.
            OutOfMemory: the runtime could not allocate.
            LeftToOthers: this input is not for this backend, which found that out before it computed.
            RunFailed: it failed in another way.
        """
        ...

    def close(self) -> None:
        """Free what the graph holds. No run may be under way, none may follow."""
        ...


Batch = tuple[Mapping[str, Array], Sequence[str]]
"""What `LoadedGraph.run` takes."""


@runtime_checkable
class Tunable(Protocol):
    """A loaded graph that can choose how it runs, once there is something to try it with."""

    def tune(self, batches: Iterable[Batch]) -> bool:
        """Choose, by trying; once for each signature, before anything else runs, on the cores that requests will have.

        Args:
            batches: Of one signature, smaller ones first, all answered before. They are made as they are asked for.

        Returns:
            Whether some of them are run in another way now, so that what was proved before says nothing of it.
        """
        ...


class Backend(Protocol):
    """A runtime."""

    @property
    def name(self) -> str:
        """Short and stable: it is a metric label, e.g. "onnxruntime-cpu"."""
        ...

    @property
    def precision(self) -> Precision:
        """Decides how far its answers may be from TensorFlow's."""
        ...

    def prepare(self, graph: GraphSpec, stop: threading.Event) -> None:
        """Make what `load` needs and what takes long to make, in a child process, unless it is there from before.

        Args:
            graph: What will be loaded.
            stop: Set when nobody wants it any more; the call returns soon after.

        Raises:
            GraphNotLoadable: it cannot be made; says why.
        """
        ...

    def load(self, graph: GraphSpec) -> LoadedGraph:
        """Load what was prepared.

        Raises:
            GraphNotLoadable: the file is damaged, or holds what the runtime cannot run.
        """
        ...
