"""Models that TensorFlow really exported, as PyTorch modules: weights, layers, numbers, one graph for all sizes."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from converter.export import ExportJob, run_export
from converter.exported import ExportedSignature, ExportResult, VariableInfo
from server.lowering import LoweredModule, Variable, lower
from tests.conftest import ROOT
from tests.server.lowering.graphs import Array, require_one_graph, require_same, run

_SMALL = ("hidden_size=64", "num_hidden_layers=2", "num_attention_heads=4", "intermediate_size=128")
_COMMANDS = {
    "vit": ("tests.models.vit", "{}", "gelu_new", *_SMALL, "image_size=32", "patch_size=8"),
    "vit-base": ("tests.models.vit", "{}", "gelu_new"),
    "bert": ("tests.models.networks", "bert", "{}", *_SMALL, "vocab_size=100"),
    "transformer.keras": ("tests.models.networks", "transformer", "{}"),
    "resnet.keras": ("tests.models.networks", "resnet", "{}", "size=64"),
    "efficientnet.keras": ("tests.models.networks", "efficientnet", "{}", "size=64"),
}
Exporter = Callable[[str], ExportResult]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, zoo: Path) -> Iterator[Exporter]:
    """A function from a model's name to its export; TensorFlow runs in children alone."""
    folder = tmp_path_factory.mktemp("lowered")
    done: dict[str, ExportResult] = {}
    with ExitStack() as stack:

        def export(name: str) -> ExportResult:
            if name not in done:
                source = zoo / name
                if name in _COMMANDS:
                    source = folder / name
                    arguments = [part.format(source) for part in _COMMANDS[name]]
                    made = subprocess.run(
                        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
                    )
                    assert made.returncode == 0, made.stderr
                job = ExportJob(source, "keras" if source.suffix == ".keras" else "saved_model")
                done[name] = stack.enter_context(run_export(job, on_progress=lambda event: None))  # noqa: ARG005
            return done[name]

        yield export
    assert "tensorflow" not in sys.modules


def _variable(info: VariableInfo) -> Variable:
    return Variable(info.name, info.trainable, int(np.prod(info.shape)))


def lowered(result: ExportResult) -> tuple[ExportedSignature, LoweredModule]:
    """The first signature of an export and its module."""
    signature = result.signatures[0]
    variables = {
        one.initializer: _variable(one.variables[0]) for one in result.initializers if one.onnx == 0 and one.variables
    }
    folded = [_variable(info) for info in result.unmapped_variables]
    return signature, lower(signature.onnx, variables, folded)


def trainable(result: ExportResult) -> int:
    """How many numbers of a model TensorFlow trains."""
    infos = {info.name: info for one in result.initializers for info in one.variables}
    infos |= {info.name: info for info in result.unmapped_variables}
    return sum(int(np.prod(info.shape)) for info in infos.values() if info.trainable)


def feeds(signature: ExportedSignature, module: LoweredModule, inputs: Mapping[str, Array]) -> list[Array]:
    """Inputs by alias, in the module's order."""
    aliases = {name: alias for alias, name in signature.inputs.items()}
    return [inputs[aliases[port.name]] for port in module.inputs]


def require_golden(signature: ExportedSignature, module: LoweredModule, tolerance: float) -> None:
    """Assert that a module answers what TensorFlow did."""
    assert signature.cases
    assert all(np.isfinite(array).all() for case in signature.cases for array in case.outputs.values())
    names = {name: alias for alias, name in signature.outputs.items()}
    for case in signature.cases:
        wanted = [case.outputs[names[port.name]] for port in module.outputs]
        require_same(run(module, *feeds(signature, module, case.inputs)), wanted, tolerance)


def dynamic(module: LoweredModule) -> list[dict[int, Any]]:
    """The axes that the exported graph leaves open."""
    return [
        {axis: Dim.DYNAMIC for axis, size in enumerate(port.shape or ()) if not isinstance(size, int)}
        for port in module.inputs
    ]


def resized(module: LoweredModule, inputs: list[Array], sizes: list[int]) -> list[Array]:
    """Inputs with the open axes of other sizes, made by repeating what is there."""
    answer = []
    for port, array in zip(module.inputs, inputs, strict=True):
        for axis, (known, size) in enumerate(zip(port.shape or (), sizes, strict=False)):
            if not isinstance(known, int):
                array = np.take(array, np.arange(size) % array.shape[axis], axis)  # noqa: PLW2901 - step by step
        answer.append(np.ascontiguousarray(array))
    return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers", "tolerance"),
    [
        ("vit", {"Linear": 13, "Conv2d": 1}, 5e-6),
        ("bert", {"Linear": 13, "Embedding": 3}, 5e-6),
        ("transformer.keras", {"Embedding": 1}, 1e-5),
        ("resnet.keras", {"Conv2d": 53, "Linear": 1}, 1e-5),
        pytest.param("efficientnet.keras", {"Conv2d": 81, "Linear": 1}, 1e-5, marks=pytest.mark.prove),
    ],
)
def test_a_model_comes_back_whole(exported: Exporter, name: str, layers: dict[str, int], tolerance: float) -> None:
    """Its answers are TensorFlow's, its layers are torch's, and as many numbers train as in TensorFlow."""
    result = exported(name)
    signature, module = lowered(result)
    require_golden(signature, module, tolerance)
    assert module.trainable_elements() == trainable(result)
    found = Counter(type(one).__name__ for one in module.modules())
    assert {kind: found[kind] for kind in layers} == layers


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["vit", "bert", "transformer.keras"])
def test_one_graph_serves_every_size(exported: Exporter, name: str) -> None:
    """Batch and sequence stay open: exported once, compiled once, no graph breaks."""
    signature, module = lowered(exported(name))
    inputs = feeds(signature, module, signature.cases[0].inputs)
    # No size that another axis has as well: torch.compile would take them for one and the same.
    cases = [resized(module, inputs, sizes) for sizes in ([6, 7], [5, 9], [2, 11])]
    require_one_graph(module, *cases, dynamic=dynamic(module))


@pytest.mark.slow
def test_fine_tuning_reaches_every_weight(exported: Exporter) -> None:
    """A few steps lower the loss and change every parameter of the network."""
    signature, module = lowered(exported("vit"))
    (pixels,) = (torch.from_numpy(array) for array in feeds(signature, module, signature.cases[0].inputs))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(module(pixels)[0], torch.ones(len(pixels), dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [name for name, parameter in module.named_parameters() if torch.equal(parameter, before[name])] == []


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_the_network_of_the_published_attempt(exported: Exporter) -> None:
    """85.8 million numbers train, as in TensorFlow, and the answers differ by no more than 5e-6."""
    result = exported("vit-base")
    signature, module = lowered(result)
    assert module.trainable_elements() == trainable(result) == 85_800_194
    require_golden(signature, module, 5e-6)
