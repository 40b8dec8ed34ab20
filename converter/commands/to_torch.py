"""`convert-and-deploy to-torch NAME --out DIR`: a published package as a PyTorch module for people."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from converter import errors
from converter.exits import ExitCode, failure_of, say
from server.errors import SegueError
from server.repository.folder import Repository
from server.repository.package import Package, open_package

if TYPE_CHECKING:
    from server.lowering.export import Written

# What `pip install segue-serving[torch]` brings.
_NEEDED: Final = ("torch", "torchvision", "onnx", "onnx2torch", "safetensors")


def to_torch(
    name: Annotated[str, typer.Argument(help="The model's name in the repository.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; it must be missing or empty.")],
    repository: Annotated[Path, typer.Option(help="Folder that the model is published in.")] = Path("models"),
    version: Annotated[int | None, typer.Option(help="Of the model.", show_default="the newest", min=1)] = None,
    signature: Annotated[
        str | None, typer.Option(help="Which one to write.", show_default="the only one, else serving_default")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what this command wrote there before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Write a published model as a PyTorch module: model.py, weights in safetensors, golden answers, README.

    Exit codes are those of `convert`: 0 done; 2 wrong usage; 3 no such signature; 4 the graph has no faithful form in
    PyTorch, or PyTorch is not installed; 6 the module's answers differ; 7 no such model, or the folder is taken.
    """
    console = Console(stderr=True, highlight=False)
    try:
        _require_torch()
        written = _write(_package(Repository(repository), name, version), out, signature, force=force)
    except (errors.ConversionError, SegueError) as error:
        raise typer.Exit(say(failure_of(error), console, as_json=as_json)) from error
    if as_json:
        print(json.dumps(_as_json(written), indent=2))
    else:
        _show(written, Console(highlight=False))


def _require_torch() -> None:
    missing = [module for module in _NEEDED if find_spec(module) is None]
    if missing:
        raise errors.TorchMissing(
            f"The PyTorch path is not installed: there is no {missing[0]}.",
            "Install it with: pip install 'segue-serving[torch]'",
        )


def _package(repository: Repository, name: str, version: int | None) -> Package:
    """Open a version of a model, the newest if none is named.

    Raises:
        InvalidName: This cannot be a model's name.
        PackageMissing: It is not there; the text says what is.
        DamagedPackage: It is not what was published.
    """
    versions = repository.versions(name)
    if not versions:
        try:
            there = sorted(one for one, held in repository.scan().items() if held)
        except OSError:
            there = []
        listed = f"it holds {', '.join(there)}" if there else "it holds no models"
        raise errors.PackageMissing(
            f"There is no model {name!r} in {repository.root}; {listed}.", "Name another model, or its --repository."
        )
    wanted = max(versions) if version is None else version
    if wanted not in versions:
        held = ", ".join(map(str, versions))
        raise errors.PackageMissing(f"{name} has no version {wanted} in {repository.root}.", f"It has {held}.")
    return open_package(name, wanted, versions[wanted])


def _write(package: Package, out: Path, signature: str | None, *, force: bool) -> "Written":
    from server.lowering.export import to_torch as write  # noqa: PLC0415 - torch takes seconds to import, and is optional

    return write(package, out, signature=signature, force=force)


def _show(written: "Written", console: Console) -> None:
    console.print(f"[green]✓[/green] {escape(str(written.folder))}: model.py, model.safetensors, golden.npz, README.md")
    console.print(f"  {written.trainable:,} numbers train; {written.tensors} tensors by TensorFlow's names")
    console.print(f"  largest difference to TensorFlow's golden answers: {written.difference:.2g}")
    console.print(f"  check it again with: python {escape(str(written.folder / 'model.py'))}", soft_wrap=True)


def _as_json(written: "Written") -> dict[str, object]:
    return {
        "folder": str(written.folder),
        "signature": written.signature,
        "trainable": written.trainable,
        "tensors": written.tensors,
        "difference": written.difference,
        "exit_code": int(ExitCode.DONE),
    }
