"""The texts of a written model: model.py and README.md, and the weights by their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from onnx import helper
from torch import nn

from protos.segue.package_pb2 import Signature
from server.lowering.export.bundle import Bundle
from server.lowering.export.source import Source, identifier
from server.lowering.export.template import LOADING, MODEL, README
from server.lowering.graph import Graph
from server.lowering.module import LoweredModule, Port

_IMPORTED: Final = frozenset({
    "import math", "import torch", "from torch import nn", "from torch.nn import functional",
    "from typing import Final",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Names:
    """What a module's tensors are called in the file.

    Attributes:
        renamed: Path in the module -> key, where they differ.
        tied: Path -> the path of the same parameter that is written.
        frozen: Paths of parameters that are not trained.
        tensors: Key -> tensor.
    """

    renamed: Mapping[str, str]
    tied: Mapping[str, str]
    frozen: Sequence[str]
    tensors: Mapping[str, torch.Tensor]


def names_of(module: LoweredModule, constants: Mapping[str, torch.Tensor]) -> Names:
    """Name a module's tensors.

    Args:
        module: The module.
        constants: Buffers that its state_dict leaves out, by path.
    """
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for path, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            tied[path] = first[id(parameter)]
        first.setdefault(id(parameter), path)
    state = {path: tensor for path, tensor in module.state_dict().items() if path not in tied} | dict(constants)
    renamed: dict[str, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    for path, tensor in state.items():
        origin = module.origins.get(path)
        name = origin.variable if origin is not None and origin.variable else path
        key = name if name == path or name not in {*state, *tensors} else path
        if key != path:
            renamed[path] = key
        tensors[key] = tensor.detach().contiguous().clone()
    frozen = [path for path, parameter in module.named_parameters() if not parameter.requires_grad]
    return Names(renamed, tied, frozen, tensors)


def written_source(module: LoweredModule, graph: Graph, aliases: Mapping[str, str]) -> tuple[Source, str]:
    """The classes of a module; the model's own comes last. Returns what was collected, and the operators' text."""
    parameters = frozenset(map(identifier, aliases.values()))
    known = Bundle()
    for _ in range(2):  # the first time finds out what the operators are called, which variables must not be
        source = Source(graph, Bundle(parameters), reserved=frozenset(known.names.values()))
        source.write(module, "Model", aliases)
        known = source.bundle
    return source, source.bundle.text()


def model_text(title: str, origin: str, source: Source, operators: str, signature: Signature, names: Names) -> str:
    """The text of model.py."""
    classes = [*source.classes[:-1], _completed(source.classes[-1])]
    imports = sorted({"from typing import Any", *source.bundle.imports} - _IMPORTED)
    dropped = {one.alias for one in signature.inputs if not one.onnx_name}
    golden = [
        {
            "inputs": {identifier(alias): key for alias, key in sorted(case.inputs.items()) if alias not in dropped},
            "outputs": dict(sorted(case.outputs.items())),
        }
        for case in signature.golden
    ]
    tolerances = {one.alias: (one.tolerance.absolute, one.tolerance.relative) for one in signature.outputs}
    return MODEL.format(
        title=title,
        source=origin,
        imports="".join(f"{line}\n" for line in imports),
        names=_table(names.renamed),
        frozen=_lines("[", "]", [f"{path!r}" for path in names.frozen]),
        tied=_table(names.tied),
        golden=_lines("[", "]", [repr(case) for case in golden]),
        tolerances=_table(tolerances),
        classes="\n\n".join(classes),
        operators=operators,
    )


def _completed(text: str) -> str:
    """The model's own class: sharing and naming at the end of its constructor, and a way to load it."""
    head, found, rest = text.partition("\n\n    def forward(")
    assert found  # noqa: S101 - every module computes something
    return f"{head}\n        finish(self)\n{LOADING}{found[1:]}{rest}"


def _table(values: Mapping[str, object]) -> str:
    return _lines("{", "}", [f"{key!r}: {value!r}" for key, value in values.items()])


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _lines(first: str, last: str, entries: Sequence[str]) -> str:
    return first + "".join(f"\n    {entry}," for entry in entries) + ("\n" if entries else "") + last


def readme_text(
    title: str, origin: str, module: LoweredModule, aliases: Mapping[str, str], names: Names, difference: float
) -> str:
    """The text of README.md."""
    inputs = [identifier(aliases[port.name]) for port in module.inputs]
    rows = [
        _row(kind, aliases[port.name], port)
        for kind, ports in (("input", module.inputs), ("output", module.outputs))
        for port in ports
    ]
    keys = {names.renamed.get(path, path): path for path in {**module.state_dict(), **names.renamed}}
    weights = [
        f"| `{key}` | `{keys.get(key, key)}` | {list(tensor.shape)} |" for key, tensor in sorted(names.tensors.items())
    ]
    last = module.outputs[0]
    classifies = re.search("logit|class|prob", aliases[last.name]) is not None
    has_norms = any(isinstance(layer, _NORMS) for layer in module.modules())
    norms = "updates its statistics in `train()`" if has_norms else "has no statistics left to update, if there was any"
    frozen = f"; {len(names.frozen)} more do not, as in TensorFlow" if names.frozen else ""
    return README.format(
        title=title, source=origin, difference=difference, call=", ".join(f"{name}={name}" for name in inputs),
        inputs=", ".join(inputs), ports="\n".join(rows), loss="cross_entropy" if classifies else "mse_loss",
        output=aliases[last.name], trainable=module.trainable_elements(),
        parameters=sum(parameter.requires_grad for parameter in module.parameters()), frozen=frozen,
        weights="\n".join(weights), norms=norms,
    )  # fmt: skip


def _row(kind: str, alias: str, port: Port) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(port.dtype).name if port.dtype else "?"
    shape = "any" if port.shape is None else "[" + ", ".join("?" if d is None else str(d) for d in port.shape) + "]"
    return f"| {kind} | `{alias}` | {dtype} | {shape} |"
