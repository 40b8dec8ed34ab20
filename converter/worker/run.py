"""One job from the source to result.json: load, export every signature, ask for golden answers, map variables."""

import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import tensorflow as tf

from converter.worker import golden, load, variables
from converter.worker.convert import convert
from converter.worker.foreign import TfVariable, Trackable
from converter.worker.freeze import Frozen, freeze
from converter.worker.golden import Case, Given
from converter.worker.interface import name_interface
from converter.worker.protocol import GOLDEN, RESULT, SAMPLES, SAVED_MODEL, Event, Job, Phase, WorkerFailure, onnx_name
from converter.worker.signature import Signature
from server.arrays import Array, load_arrays, save_arrays

Report = Callable[[Event], None]

_TOOLS: Final = ("tensorflow", "tf2onnx", "keras", "tf-keras", "onnx", "numpy")
_MAX_WORDS: Final = 1000
_INLINE_BYTES: Final = 1024  # a large model keeps constants up to this size in the graph, where shapes are read


class _Clock:
    """Seconds by phase, and the current phase announced."""

    def __init__(self, report: Report) -> None:
        self.seconds: dict[str, float] = {}
        self._report = report

    @contextmanager
    def phase(self, phase: Phase, message: str, signature: str | None = None) -> Iterator[None]:
        self._report(Event(phase, message, signature))
        start = time.monotonic()
        yield
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - start, 3)


@dataclasses.dataclass(frozen=True)
class _Export:
    """One exported signature, before it is written."""

    signature: Signature
    model: onnx.ModelProto
    inputs: Mapping[str, str | None]
    outputs: Mapping[str, str]
    cases: list[Case]
    variables: tuple[TfVariable, ...]
    large: bool
    seconds: float


def run(job: Job, folder: Path, report: Report, network: str) -> None:
    """Do a job and write its result into the private folder.

    Args:
        job: What to do.
        folder: The private folder of `protocol`.
        report: Takes progress.
        network: What the sandbox says about the network, for the result.

    Raises:
        WorkerFailure: An expected end, without result.json.
    """
    tf.config.set_visible_devices([], "GPU")
    clock = _Clock(report)
    given = _given(job, folder)
    with clock.phase("load", f"loading {job.source.name}"):
        model = load.load_saved_model(_saved_model(job, folder), job.tags)
        signatures = load.signatures(model, job.signatures)
    exports = [_export(model, signature, job, given.get(signature.name, []), clock) for signature in signatures]
    with clock.phase("map", "finding the variables in the exported graphs"):
        used = variables.read_variables(export.variables for export in exports)
        initializers, unmapped = variables.map_initializers([export.model for export in exports], used)
    with clock.phase("write", "writing the result"):
        arrays: dict[str, Array] = {}
        described = [_write(folder, index, export, arrays) for index, export in enumerate(exports)]
        save_arrays(folder / GOLDEN, arrays)
    result = {
        "tools": _tools(),
        "network": network,
        "signatures": described,
        "initializers": initializers,
        "unmapped_variables": unmapped,
        "seconds": clock.seconds,
    }
    (folder / RESULT).write_text(json.dumps(result))


def _given(job: Job, folder: Path) -> dict[str, list[Given]]:
    given: dict[str, list[Given]] = {}
    arrays = load_arrays(folder / SAMPLES) if job.samples else {}
    for sample in job.samples:
        inputs = {alias: arrays[key] for alias, key in sample.inputs.items()}
        given.setdefault(sample.signature, []).append(Given(sample.origin, inputs))
    return given


def _saved_model(job: Job, folder: Path) -> Path:
    if job.kind == "saved_model":
        return job.source
    from converter.worker.keras_source import export_saved_model  # noqa: PLC0415 - Keras only where it is needed

    return export_saved_model(job.source, folder / SAVED_MODEL)


def _export(model: Trackable, signature: Signature, job: Job, given: Sequence[Given], clock: _Clock) -> _Export:
    start = time.monotonic()
    with clock.phase("export", "exporting to ONNX", signature.name):
        frozen, exported = _convert(model, signature, job)
        inputs, outputs = name_interface(exported, signature, frozen.inputs, frozen.outputs)
    with clock.phase("golden", "asking TensorFlow for golden answers", signature.name):
        cases = golden.golden_cases(signature, given, job.batches, job.seed, _words(frozen))
    seconds = round(time.monotonic() - start, 3)
    return _Export(
        signature, exported, inputs, outputs, cases, frozen.variables, frozen.size > job.large_model_bytes, seconds
    )


def _convert(model: Trackable, signature: Signature, job: Job) -> tuple[Frozen, onnx.ModelProto]:
    """Convert without moving large weights about, and if that fails in the usual way, where weights permit it."""
    frozen = freeze(model, signature, lean_bytes=job.lean_bytes)
    if not frozen.lean or frozen.size > job.large_model_bytes:
        return frozen, convert(frozen, signature, job.opset)
    try:
        return frozen, convert(frozen, signature, job.opset)
    except WorkerFailure:
        frozen = freeze(model, signature, lean_bytes=frozen.size)
        return frozen, convert(frozen, signature, job.opset)


def _words(frozen: Frozen) -> list[bytes]:
    """Strings that the model's tables know, so that random strings meet some of them."""
    keys = [key for table, _ in frozen.tables.values() for key in np.ravel(table).tolist() if isinstance(key, bytes)]
    return sorted(keys)[:_MAX_WORDS]


def _write(folder: Path, index: int, export: _Export, arrays: dict[str, Array]) -> dict[str, Any]:
    name = onnx_name(index)
    if export.large:
        onnx.save_model(
            export.model,
            folder / name,
            save_as_external_data=True,
            location=f"{name}.data",
            size_threshold=_INLINE_BYTES,
        )
    else:
        (folder / name).write_bytes(export.model.SerializeToString())
    return {
        "name": export.signature.name,
        "onnx": name,
        "inputs": [{"alias": alias, "onnx_name": name} for alias, name in export.inputs.items()],
        "outputs": [{"alias": alias, "onnx_name": name} for alias, name in export.outputs.items()],
        "cases": [_store(arrays, f"{index}/{number}", case) for number, case in enumerate(export.cases)],
        "seconds": export.seconds,
    }


def _store(arrays: dict[str, Array], prefix: str, case: Case) -> dict[str, Any]:
    """Put a case's arrays among those for golden.npz and say under which keys."""
    keys: dict[str, dict[str, str]] = {}
    for group, values in (("inputs", case.inputs), ("outputs", case.outputs)):
        keys[group] = {alias: f"{prefix}/{group}/{alias}" for alias in values}
        arrays.update({keys[group][alias]: array for alias, array in values.items()})
    return {"origin": case.origin, "batch": case.batch, **keys}


def _tools() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _TOOLS} | {"python": platform.python_version()}
