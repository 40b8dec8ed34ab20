"""`compare`: which backend is fastest for a package on this machine."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from converter.commands.common import AsJson, RepositoryFolder, page, told
from converter.compare import Comparison, Timing, compare, write_csv
from converter.errors import InputsRejected, PackageMissing, SignatureMissing
from converter.inputs import read_inputs
from protos.segue import package_pb2
from server.arrays import Array
from server.backends.catalogue import offered
from server.backends.onnx_runtime import Device
from server.errors import FolderTaken
from server.repository.folder import Repository
from server.repository.names import check_model_name
from server.repository.package import Package, open_package
from server.signatures import DEFAULT_SIGNATURE

_TABLE = "compare.csv"
_PICTURES = ("compare.svg", "compare.png")


def compare_backends(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    repository: RepositoryFolder = Path("models"),
    version: Annotated[int | None, typer.Option(help="Its version.", show_default="the newest")] = None,
    signature: Annotated[str, typer.Option(help="Its signature.")] = DEFAULT_SIGNATURE,
    batches: Annotated[str, typer.Option(help="Numbers of rows.", metavar="N,...")] = "1,4,16",
    backends: Annotated[str, typer.Option(help="auto, or names with commas.", metavar="NAMES")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, tf32, bf16, fp16 or fastest.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of a run; 0 is one per core.", min=0)] = 0,
    rounds: Annotated[int, typer.Option(help="Counted runs of each.", min=3)] = 20,
    inputs: Annotated[Path | None, typer.Option(help="An .npz of inputs, instead of the golden ones.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for what backends compile.", envvar="SEGUE_CACHE")] = Path(
        "~/.cache/segue"
    ),
    out: Annotated[Path | None, typer.Option(help="Folder for the table as CSV and the picture.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a package in every backend that is installed, prove each, time them in turns, and say which is fastest.

    Nothing else should run meanwhile. No server is needed, and none learns from it: a server measures for itself.
    """
    console = Console(stderr=True, highlight=False)
    with told(as_json=as_json), console.status("") as status:
        if out is not None:
            _check_writable(out)  # before minutes of measuring
        package = _package(repository, name, version)
        message = _signature(package, signature)
        given = _inputs(inputs, message) if inputs else None
        choice = offered(backends, precision, device=_device(device), threads=threads, cache=cache.expanduser())
        comparison = compare(
            package,
            choice.backends,
            signature=signature,
            batches=_numbers(batches),
            rounds=rounds,
            inputs=given,
            listener=_Listener(status),
        )
    absent = {**choice.absent, **comparison.rejected}
    if as_json:
        print(json.dumps(_as_json(comparison, absent), indent=2))
    else:
        _show(name, package.version, comparison, absent)
    if out is not None:
        with told(as_json=as_json), _writing(out):
            _write(out, f"{name} version {package.version}, {signature}", comparison, console)


class _Listener:
    """Says on the terminal what is being done."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def step(self, words: str) -> None:
        """See converter.compare.Listener."""
        self._status.update(escape(words))


def _device(word: str) -> Device:
    if word == "cuda":
        return "cuda"
    if word == "cpu":
        return "cpu"
    raise typer.BadParameter(f"It is cpu or cuda, not {word!r}.", param_hint="--device")


def _package(repository: Path, name: str, version: int | None) -> Package:
    folders = Repository(repository).versions(check_model_name(name))
    if not folders or (version is not None and version not in folders):
        there = f"versions {', '.join(map(str, folders))}" if folders else "no versions"
        raise PackageMissing(
            f"{repository} has {there} of {name!r}.", "See what there is with `convert-and-deploy list`."
        )
    chosen = max(folders) if version is None else version
    return open_package(name, chosen, folders[chosen])


def _signature(package: Package, name: str) -> package_pb2.Signature:
    for message in package.manifest.signatures:
        if message.name == name:
            return message
    names = ", ".join(message.name for message in package.manifest.signatures)
    raise SignatureMissing(f"{package.name!r} has no signature {name!r}; it has {names}.", "Choose with --signature.")


def _inputs(path: Path, message: package_pb2.Signature) -> dict[str, Array]:
    aliases = {binding.alias for binding in message.inputs}
    (sample,) = read_inputs(path, {message.name: aliases})
    if missing := sorted(aliases - sample.inputs.keys()):
        raise InputsRejected(f"The inputs file {path} lacks {', '.join(missing)}.", "Give an array for each input.")
    return dict(sample.inputs)


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise typer.BadParameter("Numbers of rows are positive and separated by commas.", param_hint="--batches")
    return numbers


def _show(name: str, version: int, comparison: Comparison, absent: dict[str, str]) -> None:
    console = page()
    print(f"{name} version {version}, {comparison.signature}: milliseconds of a batch, in turns on this machine,")
    print("how many times as fast as the first, and how far from TensorFlow's answers")
    table = Table(box=SIMPLE_HEAD)
    for heading in ("rows", "backend", "ms (5-95 %)", "times as fast", "off by"):
        table.add_column(heading, justify="left" if heading == "backend" else "right", no_wrap=True)
    for timing in comparison.timings:
        table.add_row(*_cells(comparison, timing), style="bold" if comparison.fastest(timing.batch) is timing else "")
    console.print(table)
    for backend, reason in absent.items():
        console.print(f"  not {backend}: {escape(reason)}", soft_wrap=True)


def _cells(comparison: Comparison, timing: Timing) -> list[str]:
    ratio, low, high = comparison.ratio(timing)
    median, least, most = (f"{1e3 * timing.quantile(share):.3g}" for share in (0.5, 0.05, 0.95))
    times = f"{ratio:.2f} ({low:.2f}-{high:.2f})"
    return [
        *(str(timing.batch), timing.backend, f"{median} ({least}-{most})", times),
        f"{timing.difference:.1e}",
    ]


def _as_json(comparison: Comparison, absent: dict[str, str]) -> dict[str, object]:
    return {
        "signature": comparison.signature,
        "fastest": {t.batch: comparison.fastest(t.batch).backend for t in comparison.timings},
        "timings": [
            {
                "backend": t.backend,
                "precision": t.precision.value,
                "batch": t.batch,
                "runs": len(t.seconds),
                "median_ms": 1e3 * t.median,
                "p05_ms": 1e3 * t.quantile(0.05),
                "p95_ms": 1e3 * t.quantile(0.95),
                "times_first": list(comparison.ratio(t)),
                "max_abs_difference": t.difference,
            }
            for t in comparison.timings
        ],
        "absent": absent,
    }


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say which place cannot be written to, and what to do.

    Raises:
        FolderTaken: one cannot.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        raise FolderTaken(f"{place} cannot be written: {error.strerror}.", "Give another folder with --out.") from error


def _check_writable(folder: Path) -> None:
    """See that all files could be written to a folder, which is made if it is not there.

    Raises:
        FolderTaken: one could not.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in (folder / _TABLE, *(folder / name for name in _PICTURES)):
            if path.exists():
                path.open("r+b").close()


def _write(folder: Path, title: str, comparison: Comparison, console: Console) -> None:
    write_csv(folder / _TABLE, comparison)
    console.print(f"Wrote {folder / _TABLE}", soft_wrap=True)
    try:
        from converter.plot import draw  # noqa: PLC0415 - the picture is a bonus that takes a library

        for name in _PICTURES:
            draw(folder / name, title, comparison)
            console.print(f"Wrote {folder / name}", soft_wrap=True)
    except ImportError:
        console.print("No picture: it takes matplotlib (pip install 'segue-serving[convert]').")
