"""The ONNX standard's own node tests: those of operator set 18 from onnx 1.13.1, and those of the installed onnx.

The files of onnx 1.13.1 are fetched with pip into a folder that git ignores, and never installed. The newer ones are
computed by the installed onnx, without network.
"""

import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

CACHE: Final = Path(__file__).parent.parent.parent / ".cache" / "onnx-node-tests"
RELEASE: Final = "1.13.1"  # the last that ships its node tests as files; they are of operator set 18
_INSIDE: Final = "onnx/backend/test/data/node/"
_PIP: Final = (
    "-m", "pip", "download", f"onnx=={RELEASE}", "--no-deps", "--quiet", "--disable-pip-version-check",
    "--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux_2_17_x86_64",
)  # fmt: skip
# What has no one answer, which the standard's own runner leaves out too.
RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial"} | {f"Random{kind}" for kind in ("Normal", "NormalLike", "Uniform", "UniformLike")}
)
# Single tests, and why; the page lists them.
_CUT: Final = "it casts to bfloat16 by cutting off; the installed onnx's test rounds to the nearest, as torch does"
_DROPPED: Final = "the elements that it drops are those that numpy's generator drew"
LEFT_OUT: Final[Mapping[str, str]] = {
    "test_cast_FLOAT_to_BFLOAT16": _CUT, "test_castlike_FLOAT_to_BFLOAT16": _CUT,
    "test_castlike_FLOAT_to_BFLOAT16_expanded": _CUT, "test_training_dropout": _DROPPED,
    "test_training_dropout_default": _DROPPED, "test_training_dropout_mask": _DROPPED,
    "test_training_dropout_default_mask": _DROPPED,
}  # fmt: skip
Value = Any  # an array, or a list of arrays for a sequence, or None for an optional value that is not there


@dataclass(frozen=True, slots=True)
class Case:
    """One node test.

    Attributes:
        name: As the standard calls it, behind the origin: "1.13.1/test_abs" or "installed/test_abs".
        model: A graph of one node, or of the nodes that define an operator ("expanded").
        sets: Inputs and what they must give.
        rtol: Relative tolerance, as the standard says.
        atol: Absolute tolerance.
    """

    name: str
    model: onnx.ModelProto
    sets: Sequence[tuple[Sequence[Value], Sequence[Value]]]
    rtol: float = 1e-3
    atol: float = 1e-7

    @property
    def operator(self) -> str:
        """The operator that is tested."""
        nodes = [node for node in self.model.graph.node if node.op_type != "Constant"]
        return (nodes or self.model.graph.node)[0].op_type if len(nodes) <= 1 else "(expanded)"

    @property
    def operators(self) -> frozenset[str]:
        """All that the graph holds."""
        return frozenset(_operators(self.model.graph))


def frozen(case: Case) -> Case | None:
    """The case with all inputs but the first as initializers, as weights and shapes are in real models.

    None where there is nothing to freeze: one input, sequences, several sets of data.
    """
    if len(case.sets) != 1 or len(case.sets[0][0]) < 2:
        return None
    (given, wanted), graph = case.sets[0], case.model.graph
    if len(given) != len(graph.input) or not all(port.type.HasField("tensor_type") for port in graph.input):
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.input[1:]
    for port, value in zip(graph.input[1:], given[1:], strict=True):
        model.graph.initializer.append(_tensor(value, port.name))
    return Case(case.name, model, ((given[:1], wanted),), case.rtol, case.atol)


def _tensor(value: Value, name: str) -> onnx.TensorProto:
    """A value as an initializer; element types that numpy lacks are tensors of the file already."""
    if not isinstance(value, onnx.TensorProto):
        return numpy_helper.from_array(np.asarray(value), name)
    tensor = onnx.TensorProto()
    tensor.CopyFrom(value)
    tensor.name = name
    return tensor


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)


def is_wanted(case: Case, names: frozenset[str]) -> bool:
    """Whether a case holds no operator but these (and Constant), and none whose answers are random."""
    return case.operators <= names | {"Constant"} and not case.operators & RANDOM


def fetch() -> Path:
    """The folder of onnx 1.13.1's node tests, fetched on first use.

    Raises:
        subprocess.CalledProcessError: pip could not fetch them; its output says why.
    """
    folder = CACHE / RELEASE
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, *_PIP, "--dest", str(CACHE)], check=True)
        (wheel,) = CACHE.glob("onnx-*.whl")
        partial = CACHE / "partial"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial, [name for name in archive.namelist() if name.startswith(_INSIDE)])
        (partial / _INSIDE).rename(folder)
        wheel.unlink()
    return folder


def released(names: frozenset[str]) -> Iterator[Case]:
    """The node tests of onnx 1.13.1 whose graphs hold no operator but these (and Constant)."""
    for folder in sorted(fetch().iterdir()):
        model = onnx.load(folder / "model.onnx")
        case = Case(f"{RELEASE}/{folder.name}", model, ())
        if folder.name not in LEFT_OUT and is_wanted(case, names):
            yield Case(case.name, model, tuple(_set(one, model) for one in sorted(folder.glob("test_data_set_*"))))


def _set(folder: Path, model: onnx.ModelProto) -> tuple[list[Value], list[Value]]:
    def read(kind: str, ports: Sequence[onnx.ValueInfoProto]) -> list[Value]:
        files = [folder / f"{kind}_{index}.pb" for index in range(len(ports))]
        return [_value(file.read_bytes(), port.type) for file, port in zip(files, ports, strict=True) if file.exists()]

    return read("input", model.graph.input), read("output", model.graph.output)


def _value(data: bytes, kind: onnx.TypeProto) -> Value:
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    tensor = onnx.TensorProto.FromString(data)
    if kind.tensor_type.elem_type == onnx.TensorProto.BFLOAT16 and tensor.data_type == onnx.TensorProto.UINT16:
        tensor.data_type = onnx.TensorProto.BFLOAT16  # the release wrote the bits alone
    return numpy_helper.to_array(tensor)


@cache
def _computed() -> Mapping[str, Case]:
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - it computes every test

    return {
        f"installed/{one.name}": Case(f"installed/{one.name}", one.model, one.data_sets or (), one.rtol, one.atol)
        for one in collect_testcases()
        if one.model is not None
    }


def installed(names: frozenset[str]) -> Iterator[Case]:
    """The node tests of the installed onnx whose graphs hold no operator but these (and Constant)."""
    for _, case in sorted(_computed().items()):
        if is_wanted(case, names):
            yield case
