"""What the converter and its child process write for each other: file names, the job, progress, failures.

Both sides import this module, so it needs nothing beyond the standard library; in particular no numpy, whose threads
would be there before the sandbox closes.

The private folder of one run holds
    job.json, samples.npz           written by the parent before the start (`Job`)
    0.onnx, 1.onnx, …               raw exports, one per signature; above the job's threshold with N.onnx.data beside
    golden.npz                      golden inputs and TensorFlow's outputs, keyed as result.json says
    saved_model/                    the SavedModel that Keras wrote, when the source is a Keras model
    result.json or error.json       how it ended
    worker.log                      everything that TensorFlow said
    home/, tmp/                     HOME and TMPDIR of the child
Progress is one JSON object per line on the child's standard output (`Event`).
"""

import dataclasses
import enum
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

JOB: Final = "job.json"
SAMPLES: Final = "samples.npz"
RESULT: Final = "result.json"
ERROR: Final = "error.json"
GOLDEN: Final = "golden.npz"
LOG: Final = "worker.log"
SAVED_MODEL: Final = "saved_model"
HOME: Final = "home"
TMP: Final = "tmp"
PARENT: Final = "SEGUE_PARENT"  # environment variable: the process that the child must not outlive
GIB: Final = 1 << 30

SourceKind = Literal["saved_model", "keras"]
Origin = Literal["inputs file", "warm-up", "random"]
Phase = Literal["start", "load", "export", "golden", "map", "write"]


class FailureKind(enum.StrEnum):
    """Why a worker gave up, in words that both sides know."""

    UNLOADABLE = "unloadable"
    SIGNATURE_MISSING = "signature_missing"
    UNSUPPORTED_OPERATOR = "unsupported_operator"
    EXPORT_FAILED = "export_failed"
    INPUTS_REJECTED = "inputs_rejected"
    NONDETERMINISTIC = "nondeterministic"
    WEIGHTS_ONLY = "weights_only"
    UNTRUSTED_CODE = "untrusted_code"
    OUT_OF_MEMORY = "out_of_memory"
    DISK = "disk"


class WorkerFailure(Exception):
    """An expected end without a result: what was wrong, and what the user can do."""

    def __init__(self, kind: FailureKind, cause: str, advice: str) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause
        self.advice = advice


def _most_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8 * 7


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the child may use; the defaults hold for models of some gigabytes.

    Attributes:
        memory_bytes: Private writable memory; by default seven eighths of the machine's. Conversion holds a model's
            weights about ten times.
        cpu_seconds: Processor time of all threads together.
        file_bytes: Size of any one file that it writes.
    """

    memory_bytes: int = dataclasses.field(default_factory=_most_memory)
    cpu_seconds: int = 4 * 3600
    file_bytes: int = 64 * GIB


@dataclasses.dataclass(frozen=True)
class Sample:
    """One representative input of a signature: alias to key in samples.npz."""

    signature: str
    origin: Origin
    inputs: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Job:
    """What the child is asked to do.

    Attributes:
        source: The SavedModel's folder, or the `.keras` or `.h5` file; absolute.
        kind: What the source is.
        tags: Which of a SavedModel's graphs.
        signatures: Their names, or None for all.
        opset: Of the ONNX models.
        seed: Of every random draw.
        batches: Sizes of the golden batches, where a signature can be batched.
        samples: Representative inputs, best first.
        lean_bytes: Variables beyond this size stay out of TensorFlow's own graph optimizer, which copies them often.
        large_model_bytes: Variables beyond this size go into a data file beside the ONNX model (protobuf's limit is
            2 GiB for a whole message).
        limits: What the child may use.
    """

    source: Path
    kind: SourceKind
    tags: tuple[str, ...] = ("serve",)
    signatures: tuple[str, ...] | None = None
    opset: int = 18
    seed: int = 0
    batches: tuple[int, ...] = (1, 2, 5)
    samples: tuple[Sample, ...] = ()
    lean_bytes: int = GIB // 1024
    large_model_bytes: int = 3 * GIB // 2
    limits: Limits = dataclasses.field(default_factory=Limits)

    def write(self, folder: Path) -> None:
        """Write job.json into the private folder."""
        (folder / JOB).write_text(json.dumps({**dataclasses.asdict(self), "source": str(self.source)}))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the job.json that `write` left in the private folder."""
        fields: dict[str, Any] = json.loads((folder / JOB).read_text())
        signatures = fields["signatures"]
        return cls(**{
            **fields,
            "source": Path(fields["source"]),
            "tags": tuple(fields["tags"]),
            "signatures": None if signatures is None else tuple(signatures),
            "batches": tuple(fields["batches"]),
            "samples": tuple(Sample(**sample) for sample in fields["samples"]),
            "limits": Limits(**fields["limits"]),
        })  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Event:
    """One line of progress: the phase, the signature that it is about if any, and a sentence for people."""

    phase: Phase
    message: str
    signature: str | None = None

    def line(self) -> str:
        """The event as a line of JSON, newline included."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def parse(cls, line: bytes) -> Self | None:
        """The event of a line, or None where the line is none (the child may have died while writing it)."""
        try:
            fields = json.loads(line)
            signature = fields["signature"]
            phases: dict[str, Phase] = {phase: phase for phase in get_args(Phase)}
            return cls(phases[fields["phase"]], str(fields["message"]), None if signature is None else str(signature))
        except (TypeError, ValueError, LookupError):
            return None


def onnx_name(index: int) -> str:
    """The file of the signature with this index."""
    return f"{index}.onnx"
