"""What an export gives, and how it is read from the worker's private folder.

The worker runs a program of unknown origin, so its files are read as a stranger's: names are ours, types are checked,
and whatever does not fit raises.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from converter.worker import protocol
from converter.worker.protocol import Origin
from server.arrays import Array, load_arrays


@dataclasses.dataclass(frozen=True)
class GoldenCase:
    """Inputs and what TensorFlow answered, by alias; `batch` is None where there is no common first dimension."""

    origin: Origin
    batch: int | None
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class ExportedSignature:
    """One signature as an ONNX model, not yet checked by anyone.

    Attributes:
        name: The signature's.
        onnx: The model's file; a large model has NAME.data beside it.
        inputs: ONNX name by alias, None for an input that the graph does not have.
        outputs: ONNX name by alias.
        cases: Golden cases.
        seconds: What export and golden answers took.
    """

    name: str
    onnx: Path
    inputs: Mapping[str, str | None]
    outputs: Mapping[str, str]
    cases: tuple[GoldenCase, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class VariableInfo:
    """A TensorFlow variable; the name has no ":0"."""

    name: str
    shape: tuple[int, ...]
    trainable: bool


@dataclasses.dataclass(frozen=True)
class MappedInitializer:
    """An initializer and the variables whose value it holds: several if they are equal, none if it is no variable.

    Attributes:
        onnx: Index of the signature whose model it is in.
        initializer: Its name.
        variables: They all have this value.
        transposition: Permutation of the variable's axes that comes first; empty if none.
        reshaped: Whether axes were then merged, split, added or dropped.
    """

    onnx: int
    initializer: str
    variables: tuple[VariableInfo, ...]
    transposition: tuple[int, ...]
    reshaped: bool


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What the worker made. Its files lie in a private folder that goes when `run_export`'s block ends.

    Attributes:
        signatures: In the order of their names.
        initializers: Of all models.
        unmapped_variables: Variables that no initializer holds unchanged.
        tools: Versions by name.
        network: "denied", or "not denied: " and why.
        seconds: By phase, and in "total" the worker's whole life.
        saved_model: The SavedModel that Keras wrote, for Keras sources.
        log: Everything that TensorFlow said.
    """

    signatures: tuple[ExportedSignature, ...]
    initializers: tuple[MappedInitializer, ...]
    unmapped_variables: tuple[VariableInfo, ...]
    tools: Mapping[str, str]
    network: str
    seconds: Mapping[str, float]
    saved_model: Path | None
    log: Path


def read_result(folder: Path, seconds: float) -> ExportResult:
    """Read result.json and the golden arrays of a worker that ended well.

    Args:
        folder: The private folder.
        seconds: How long the worker ran.

    Raises:
        OSError, ValueError, LookupError, TypeError, AttributeError: They are not as the worker writes them.
    """
    result = json.loads((folder / protocol.RESULT).read_text())
    arrays = load_arrays(folder / protocol.GOLDEN)
    saved_model = folder / protocol.SAVED_MODEL
    return ExportResult(
        signatures=tuple(
            _signature(folder / protocol.onnx_name(index), entry, arrays)
            for index, entry in enumerate(result["signatures"])
        ),
        initializers=tuple(map(_initializer, result["initializers"])),
        unmapped_variables=tuple(map(_variable, result["unmapped_variables"])),
        tools={str(name): str(version) for name, version in result["tools"].items()},
        network=str(result["network"]),
        seconds={str(k): float(v) for k, v in result["seconds"].items()} | {"total": round(seconds, 3)},
        saved_model=saved_model if saved_model.is_dir() else None,
        log=folder / protocol.LOG,
    )


def _signature(model: Path, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> ExportedSignature:
    if model.is_symlink() or not model.is_file():
        raise ValueError(f"{model.name} is no file")
    inputs = {str(i["alias"]): None if i["onnx_name"] is None else str(i["onnx_name"]) for i in entry["inputs"]}
    outputs = {str(o["alias"]): str(o["onnx_name"]) for o in entry["outputs"]}
    return ExportedSignature(
        name=str(entry["name"]),
        onnx=model,
        inputs=inputs,
        outputs=outputs,
        cases=tuple(_case(case, inputs, outputs, arrays) for case in entry["cases"]),
        seconds=float(entry["seconds"]),
    )


def _case(
    entry: Mapping[str, Any], inputs: Iterable[str], outputs: Iterable[str], arrays: Mapping[str, Array]
) -> GoldenCase:
    origin, batch = entry["origin"], entry["batch"]
    if origin not in get_args(Origin) or not (batch is None or isinstance(batch, int)):
        raise ValueError(f"a golden case has origin {origin!r} and batch {batch!r}")
    return GoldenCase(
        origin=origin,
        batch=batch,
        inputs={alias: arrays[entry["inputs"][alias]] for alias in inputs},
        outputs={alias: arrays[entry["outputs"][alias]] for alias in outputs},
    )


def _initializer(entry: Mapping[str, Any]) -> MappedInitializer:
    return MappedInitializer(
        onnx=int(entry["onnx"]),
        initializer=str(entry["initializer"]),
        variables=tuple(map(_variable, entry["variables"])),
        transposition=tuple(map(int, entry["transposition"])),
        reshaped=bool(entry["reshaped"]),
    )


def _variable(entry: Mapping[str, Any]) -> VariableInfo:
    return VariableInfo(str(entry["name"]), tuple(map(int, entry["shape"])), bool(entry["trainable"]))
