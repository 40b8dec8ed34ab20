"""What comes back of models as PyTorch modules: `python -m benchmarks.lowered` measures, writes JSON and a table.

Every model is converted once (`--repository` keeps what was converted, and takes what is there). Its package is then
lowered, and asked: do as many numbers train as in TensorFlow, are its layers
recognised, does it compile into one graph for all sizes, and does it answer what TensorFlow answered. The table goes
into docs/torch-module.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import fx, nn

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
    "control": ("loop and branch on the data", ("tests.models.zoo", "{parent}", "control")),
    "basic_pitch": ("basic-pitch (--basic-pitch SAVEDMODEL)", ()),
}  # fmt: skip


def measure(package: Package) -> dict[str, Any]:
    """Lower a package and measure it."""
    known = {one.name: one for one in package.manifest.signatures}
    signature = known.get("serving_default") or package.manifest.signatures[0]
    variables, folded = variables_of(package.manifest, signature.onnx_file)
    module = lower(package.path / signature.onnx_file, variables, folded)
    wanted, arrays = answers(package, signature, [port.name for port in module.inputs]), package.golden_arrays()
    difference, comparable = 0.0, True
    with torch.no_grad():
        for inputs, case in wanted:
            got = module(*inputs)
            aliases = {one.onnx_name: one.alias for one in signature.outputs}
            for port, answer in zip(module.outputs, got, strict=True):
                expected = torch.from_numpy(arrays[case[aliases[port.name]]])
                comparable = comparable and bool(expected.isfinite().all())
                difference = max(difference, (answer.double() - expected.double()).abs().max().item())
        first = wanted[-1][0]
        breaks = torch._dynamo.explain(module)(*first).graph_break_count  # noqa: SLF001 - its public name
        exported, graphs = exports(module, first), compiled(module, first)
    return {
        "trainable": module.trainable_elements(),
        "tensorflow": trainable(package.manifest),
        **layers(module),
        "graph_breaks": breaks,
        "exports": exported,
        "graphs": graphs,
        "difference": difference if comparable else None,
    }


def answers(package: Package, signature: Signature, order: Sequence[str]) -> list[tuple[Tensors, dict[str, str]]]:
    """Golden inputs as tensors, in the module's order, and the keys of the answers by alias."""
    arrays = package.golden_arrays()
    aliases = {one.onnx_name: one.alias for one in signature.inputs}
    return [
        (tuple(torch.from_numpy(arrays[case.inputs[aliases[name]]]) for name in order), dict(case.outputs))
        for case in signature.golden
    ]


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


def exports(module: LoweredModule, inputs: Tensors) -> bool:
    """Whether torch.export takes the module with every open axis dynamic."""
    axes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.shape or ()) if not isinstance(size, int)}
        for port in module.inputs
    )
    tensors = tuple(grown(tensor, port.shape, 2) for tensor, port in zip(inputs, module.inputs, strict=True))
    torch.export.export(module, tensors, dynamic_shapes=axes)
    return True


def grown(tensor: torch.Tensor, shape: Sequence[int | str | None] | None, batch: int) -> torch.Tensor:
    """A tensor whose first axis has another size, if that axis is open."""
    if not shape or isinstance(shape[0], int):
        return tensor
    return tensor.index_select(0, torch.arange(batch) % tensor.shape[0]).contiguous()


def compiled(module: LoweredModule, inputs: Tensors) -> int:
    """How many graphs torch.compile makes of batches of 2, 5 and 7, sizes that no open axis has."""
    graphs: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, _: Sequence[torch.Tensor]) -> fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    function = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for batch in (2, 5, 7):
        tensors = [grown(tensor, port.shape, batch) for tensor, port in zip(inputs, module.inputs, strict=True)]
        function(*tensors)
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
        "| model | numbers that train | TensorFlow's | attentions | layer norms | dense | LSTM, GRU | graph breaks | "
    )
    lines = [
        head + "dynamic export | graphs for 3 batch sizes | largest difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        cells = [
            MODELS[name][0], f"{one['trainable']:,}", f"{one['tensorflow']:,}", one["attentions"], one["layer_norms"],
            one["dense"], one["recurrent"], one["graph_breaks"], "yes" if one["exports"] else "no", one["graphs"],
            "—" if one["difference"] is None else f"{one['difference']:.2g}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


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
