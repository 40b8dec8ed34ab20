"""What comes back of models as PyTorch modules: `python -m benchmarks.lowered` measures, writes JSON and a table.

Every model is converted once (`--repository` keeps what was converted, and takes what is there). Its package is then
lowered, and asked: do as many numbers train as in TensorFlow, are its layers recognised, does it compile into one graph
for all sizes, does it answer what TensorFlow answered, and do a few steps of training reach every parameter. The table
goes into docs/torch-module.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import fx, nn

from benchmarks.doubled import doubled
from benchmarks.machine import describe
from protos.segue.package_pb2 import ModelPackage, Signature
from server.lowering import LoweredModule, lower
from server.lowering.attention import attended
from server.lowering.operators.attention import attention
from server.lowering.package import variables_of
from server.repository.folder import Repository
from server.repository.package import Package, open_package

Tensors = tuple[torch.Tensor, ...]
ROOT: Final = Path(__file__).resolve().parent.parent
RESULT: Final = Path(__file__).parent / "results" / "lowered.json"
DOCUMENT: Final = ROOT / "docs" / "torch-module.md"
MARKS: Final = ("<!-- lowered: begin -->", "<!-- lowered: end -->")
# Name -> what it is, and the command that writes it; {} is the source's path.
MODELS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "vit": ("ViT-Base of the published attempt", ("tests.models.vit", "{}", "gelu_new")),
    "bert": ("BERT, any batch and length", ("tests.models.networks", "bert", "{}", "hidden_size=64",
             "num_hidden_layers=2", "num_attention_heads=4", "intermediate_size=128", "vocab_size=100")),
    "resnet": ("ResNet-50, batch normalisation", ("tests.models.networks", "resnet", "{}.keras", "size=64")),
    "efficientnet": ("EfficientNet-B0", ("tests.models.networks", "efficientnet", "{}.keras", "size=64")),
    "recurrent": ("bidirectional GRU and LSTM (Keras 2)", ("tests.models.networks", "recurrent", "{}.h5")),
    "transformer": ("Keras 3 attention, masked", ("tests.models.networks", "transformer", "{}.keras")),
    "gru": ("bidirectional GRU (Keras 3), masked: two loops", ("tests.models.networks", "gru", "{}.keras")),
    "control": ("loop and branch on the data", ("tests.models.zoo", "{parent}", "control")),
    "basic_pitch": ("basic-pitch (--basic-pitch SAVEDMODEL)", ()),
}  # fmt: skip
# What may lie between the module's and TensorFlow's answers, in single precision.
BOUND: Final = 5e-6
# Sizes of the open axes, by their order, of three runs. None is another axis's size: torch.compile would take the
# two for one and the same.
SIZES: Final = ((2, 7, 13), (5, 9, 17), (7, 11, 19))
_STEPS: Final = 4


def measure(package: Package) -> dict[str, Any]:
    """Lower a package and measure it."""
    known = {one.name: one for one in package.manifest.signatures}
    signature = known.get("serving_default") or package.manifest.signatures[0]
    variables, folded = variables_of(package.manifest, signature.onnx_file)
    module = lower(package.path / signature.onnx_file, variables, folded)
    wanted = answers(package, signature, module)
    first = wanted[-1][0]
    with torch.no_grad():
        difference, comparable = farthest([module(*inputs) for inputs, _ in wanted], [after for _, after in wanted])
        breaks = torch._dynamo.explain(module)(*first).graph_break_count  # noqa: SLF001 - its public name
        exported, graphs = exports(module, first), compiled(module, first)
    found = {
        "trainable": module.trainable_elements(),
        "tensorflow": trainable(package.manifest),
        **layers(module),
        "graph_breaks": breaks,
        "exports": exported,
        "sizes": [list(sizes[: open_axes(module)]) for sizes in SIZES],
        "graphs": graphs,
        "difference": difference if comparable else None,
    }
    if comparable and difference > BOUND:
        found |= errors(package.path / signature.onnx_file, module, wanted)
    return found | {"tuned": tuned(module, first)}


def answers(package: Package, signature: Signature, module: LoweredModule) -> list[tuple[Tensors, Tensors]]:
    """Golden inputs and TensorFlow's answers as tensors, in the module's order."""
    arrays = package.golden_arrays()
    taken = {one.onnx_name: one.alias for one in signature.inputs}
    given = {one.onnx_name: one.alias for one in signature.outputs}
    return [
        (
            tuple(torch.from_numpy(arrays[case.inputs[taken[port.name]]]) for port in module.inputs),
            tuple(torch.from_numpy(arrays[case.outputs[given[port.name]]]) for port in module.outputs),
        )
        for case in signature.golden
    ]


def farthest(got: Sequence[Tensors], wanted: Sequence[Tensors]) -> tuple[float, bool]:
    """The largest difference between answers, and whether all that was wanted is finite."""
    pairs = [pair for one, other in zip(got, wanted, strict=True) for pair in zip(one, other, strict=True)]
    difference = max((one.double() - other.double()).abs().max().item() for one, other in pairs)
    return difference, all(bool(other.isfinite().all()) for _, other in pairs)


def errors(path: Path, module: LoweredModule, wanted: Sequence[tuple[Tensors, Tensors]]) -> dict[str, float]:
    """How far the module's answers and TensorFlow's each are from those of the same graph in double precision."""
    exact = lower(doubled(onnx.load(path)))
    with torch.no_grad():
        right = [exact(*(one.double() if one.is_floating_point() else one for one in inputs)) for inputs, _ in wanted]
        own = [module(*inputs) for inputs, _ in wanted]
    return {"own_error": farthest(own, right)[0], "tensorflow_error": farthest([a for _, a in wanted], right)[0]}


def tuned(module: LoweredModule, inputs: Tensors) -> dict[str, Any]:
    """What a few steps of Adam do to the eager module, whose parameters they change.

    The goal is random: it is about whether training reaches every number, not about what would be learnt.

    Returns:
        Steps, the loss before the first and after the last, how many parameters there are to train, and how many have
        changed; or, under "left_out", why there is nothing to tune.
    """
    before = {name: one.detach().clone() for name, one in module.named_parameters() if one.requires_grad}
    if not before:
        return {"left_out": "TensorFlow trains nothing of it"}
    draw = torch.Generator().manual_seed(0)
    goals = [
        torch.randn(answer.shape, generator=draw) if answer.is_floating_point() else None for answer in module(*inputs)
    ]
    trained = [one for one in module.parameters() if one.requires_grad]
    # Random weights can make gradients that are far below Adam's usual epsilon, and every one is to count.
    optimizer = torch.optim.Adam(trained, lr=1e-5, eps=1e-20)
    losses = []
    for step in range(_STEPS + 1):
        pairs = zip(module(*inputs), goals, strict=True)
        loss = torch.stack([((answer - goal) ** 2).mean() for answer, goal in pairs if goal is not None]).sum()
        losses.append(loss.item())
        if step < _STEPS:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch's
            optimizer.step()
    changed = sum(not torch.equal(one, before[name]) for name, one in module.named_parameters() if name in before)
    return {"steps": _STEPS, "losses": [losses[0], losses[-1]], "parameters": len(before), "changed": changed}


def trainable(manifest: ModelPackage) -> int:
    """How many numbers TensorFlow trains."""
    sizes: dict[str, int] = {}
    for variable in (*(v for one in manifest.initializers for v in one.variables), *manifest.unmapped_variables):
        if variable.trainable:
            count = 1
            for size in variable.shape:
                count *= size
            sizes[variable.name] = count
    return sum(sizes.values())


def layers(module: LoweredModule) -> dict[str, int]:
    """How many of each kind of layer are recognised."""
    kinds = {"layer_norms": nn.LayerNorm, "dense": nn.Linear, "recurrent": (nn.LSTM, nn.GRU)}
    counts = {
        name: sum(isinstance(one, kind) for one in module.modules())  # type: ignore[arg-type] # a class or a tuple
        for name, kind in kinds.items()
    }
    return {"attentions": sum(node.target in {attended, attention} for node in module.graph.nodes), **counts}


def open_axes(module: LoweredModule) -> int:
    """How many axes of the input that leaves most of them open may have any size."""
    return max(sum(not isinstance(size, int) for size in port.shape or ()) for port in module.inputs)


def exports(module: LoweredModule, inputs: Tensors) -> bool:
    """Whether torch.export takes the module with every open axis dynamic."""
    axes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.shape or ()) if not isinstance(size, int)}
        for port in module.inputs
    )
    torch.export.export(module, grown(module, inputs, SIZES[0]), dynamic_shapes=axes)
    return True


def grown(module: LoweredModule, inputs: Tensors, sizes: Sequence[int]) -> Tensors:
    """Inputs whose open axes have other sizes, by their order: what is there is repeated, or cut off."""
    return tuple(_sized(tensor, port.shape, sizes) for tensor, port in zip(inputs, module.inputs, strict=True))


def _sized(tensor: torch.Tensor, shape: Sequence[int | str | None] | None, sizes: Sequence[int]) -> torch.Tensor:
    opened = [axis for axis, size in enumerate(shape or ()) if not isinstance(size, int)]
    for axis, size in zip(opened, sizes, strict=False):
        tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
    return tensor.contiguous()


def compiled(module: LoweredModule, inputs: Tensors) -> int:
    """How many graphs torch.compile makes of three runs in which every open axis has another size."""
    graphs: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, _: Sequence[torch.Tensor]) -> fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    function = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for sizes in SIZES:
        function(*grown(module, inputs, sizes))
    return len(graphs)


def converted(name: str, repository: Path, basic_pitch: Path | None) -> Package | None:
    """The newest package of a model, converted if there is none; None if its source is not at hand."""
    versions = Repository(repository).versions(name)
    if not versions:
        with tempfile.TemporaryDirectory() as folder:
            source = basic_pitch if name == "basic_pitch" else written(name, Path(folder))
            if source is None:
                return None
            command = [sys.executable, "-m", "converter", str(source), "--name", name, "--repository", str(repository)]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        versions = Repository(repository).versions(name)
    newest = max(versions)
    return open_package(name, newest, versions[newest])


def written(name: str, folder: Path) -> Path:
    """Write a model's source."""
    path = folder / name
    arguments = [part.format(path, parent=folder) for part in MODELS[name][1]]
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True, capture_output=True)
    return next(found for found in folder.iterdir() if found.name.startswith(name))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of the document."""
    head = (
        "model", "numbers that train", "TensorFlow's", "attentions", "layer norms", "dense", "LSTM, GRU",
        "graph breaks", "dynamic export", "sizes of the open axes", "graphs for them", "largest difference",
        "parameters that Adam changed", "its loss",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, one in results.items():
        cells = [
            MODELS[name][0], f"{one['trainable']:,}", f"{one['tensorflow']:,}", one["attentions"], one["layer_norms"],
            one["dense"], one["recurrent"], one["graph_breaks"], "yes" if one["exports"] else "no",
            ", ".join(" by ".join(map(str, sizes)) for sizes in one["sizes"]), one["graphs"], _difference(one),
            *_tuned(one["tuned"]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _difference(one: Mapping[str, Any]) -> str:
    if one["difference"] is None:
        return "—"
    text = f"{one['difference']:.2g}"
    if "own_error" in one:
        text += f"; from double precision {one['own_error']:.2g}, TensorFlow's {one['tensorflow_error']:.2g}"
    return text


def _tuned(one: Mapping[str, Any]) -> tuple[str, str]:
    if "left_out" in one:
        return f"none: {one['left_out']}", "—"
    first, last = one["losses"]
    return f"{one['changed']} of {one['parameters']}", f"{first:.6g} → {last:.6g}"


def render(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The document with the table in its place."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table(results)}\n{MARKS[1]}{after}"


def main() -> None:
    """Measure all models, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)}; all if none is named")
    parser.add_argument("--repository", type=Path, help="where packages are kept; by default they are thrown away")
    parser.add_argument("--basic-pitch", type=Path, help="folder of basic-pitch's SavedModel, from its wheel")
    parser.add_argument("--table", action="store_true", help="write the table from the JSON again")
    options = parser.parse_args()
    if not options.table:
        found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            repository = options.repository or Path(folder) / "models"
            for name in options.names or MODELS:
                package = converted(name, repository, options.basic_pitch)
                if package is None:
                    print(f"{name}: left out, its source is not at hand")
                    continue
                found[name] = measure(package)
                print(name, json.dumps(found[name]), flush=True)
        every = (json.loads(RESULT.read_text("utf-8"))["models"] if RESULT.exists() else {}) | found
        ordered = {name: every[name] for name in MODELS if name in every}
        RESULT.write_text(json.dumps({"models": ordered, "machine": describe()}, indent=1) + "\n", "utf-8")
    document = json.loads(RESULT.read_text("utf-8"))
    DOCUMENT.write_text(render(DOCUMENT.read_text("utf-8"), document["models"]), "utf-8")


if __name__ == "__main__":
    main()
