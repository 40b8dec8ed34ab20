"""The folder that `to_torch` writes: all of it or nothing, and only what answers as TensorFlow did."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors.torch import save_file

from protos.segue.package_pb2 import Signature
from server.errors import FolderTaken, ProofFailed, SignatureNotFound
from server.lowering.export.files import model_text, names_of, readme_text, written_source
from server.lowering.graph import read_graph
from server.lowering.package import variables_of
from server.lowering.walk import lower
from server.repository.names import GOLDEN
from server.repository.package import Package

FILES: Final = ("README.md", GOLDEN, "model.py", "model.safetensors")
_LEFT: Final = frozenset({*FILES, "__pycache__"})
_DEFAULT: Final = "serving_default"
_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        folder: Where.
        signature: Which of the package's signatures the module answers.
        trainable: How many numbers training changes.
        tensors: How many tensors the weights' file holds.
        difference: The largest absolute difference to TensorFlow's golden answers.
    """

    folder: Path
    signature: str
    trainable: int
    tensors: int
    difference: float


def to_torch(package: Package, out: Path, *, signature: str | None = None, force: bool = False) -> Written:
    """Write a package as a PyTorch module that stands on its own.

    Args:
        package: The package, opened and so verified.
        out: The folder to write; missing, empty, or one that this function wrote (with `force`).
        signature: Which signature's graph; by default the only one, or "serving_default".
        force: Whether an earlier result is replaced.

    Raises:
        SignatureNotFound: The package has no such signature, or several and none by default.
        GraphNotLowerable: An operator has no faithful form in torch.
        FolderTaken: The folder is taken, or cannot be written.
        ProofFailed: The module that was written does not answer as TensorFlow did.
    """
    chosen = _signature(package, signature)
    _require_free(out, force=force)
    path = package.path / chosen.onnx_file
    variables, folded = variables_of(package.manifest, chosen.onnx_file)
    module = lower(path, variables, folded)
    aliases = {one.onnx_name: one.alias for one in (*chosen.inputs, *chosen.outputs) if one.onnx_name}
    title = f"{package.name}, version {package.version}"
    title += "" if signature is None else f", signature {_harmless(chosen.name)}"
    origin = f"{_harmless(package.manifest.source.label) or package.name}, a TensorFlow model"
    source, operators = written_source(module, read_graph(path), aliases)
    names = names_of(module, source.buffers)
    with _staged(out) as folder:
        text = model_text(title, origin, source, operators, chosen, names)
        (folder / "model.py").write_text(text, "utf-8")
        save_file(dict(names.tensors), folder / "model.safetensors", metadata={"format": "pt"})
        # It writes for its user alone; whoever may read the code may read the weights.
        (folder / "model.safetensors").chmod((folder / "model.py").stat().st_mode)
        shutil.copyfile(package.path / GOLDEN, folder / GOLDEN)
        difference = _checked(folder)
        readme = readme_text(title, origin, module, aliases, names, difference)
        (folder / "README.md").write_text(readme, "utf-8")
    return Written(out, chosen.name, module.trainable_elements(), len(names.tensors), difference)


def _harmless(text: str) -> str:
    """A name from a package as it may stand in a docstring: it must not end it."""
    return re.sub(r"[^\w .:/+-]", "_", text)


def _signature(package: Package, wanted: str | None) -> Signature:
    known = {one.name: one for one in package.manifest.signatures}
    if wanted is None and len(known) == 1:
        return next(iter(known.values()))
    name = _DEFAULT if wanted is None else wanted
    if name not in known:
        there = ", ".join(sorted(known))
        raise SignatureNotFound(f"{package.name} version {package.version} has no signature {name!r}; it has {there}.")
    return known[name]


def _require_free(out: Path, *, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise FolderTaken(f"{out} is there and is no folder.", "Name another one with --out.")
    there = {entry.name for entry in out.iterdir()} if out.exists() else set()
    if there and not force:
        raise FolderTaken(f"{out} is not empty.", "Name another folder with --out, or replace it with --force.")
    if strange := sorted(there - _LEFT):
        raise FolderTaken(
            f"{out} holds {strange[0]!r}, which is none of the files that are written here.",
            "It is not replaced; name another folder with --out.",
        )


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder beside the wanted one, which takes its place at the end."""
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    except OSError as error:
        raise FolderTaken(f"{out} cannot be written: {error.strerror}.", "Name another folder with --out.") from error
    try:
        yield staging
        shutil.rmtree(staging / "__pycache__", ignore_errors=True)
        staging.chmod(0o755)
        _exchange(staging, out)
    except OSError as error:
        raise FolderTaken(f"{out} cannot be written: {error.strerror}.", "Name another folder with --out.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _exchange(staging: Path, out: Path) -> None:
    """Put the new folder into the place of an old one, which is put back if that fails."""
    if not out.exists():
        staging.rename(out)
        return
    old = staging.with_name(f"{staging.name}.old")
    out.rename(old)
    try:
        staging.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _checked(folder: Path) -> float:
    """Run what was written, as its reader will: in a process of its own, which knows nothing of us."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    command = [sys.executable, "-B", "-I", "-W", "ignore", str(folder / "model.py")]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ProofFailed(f"The module did not answer the golden requests within {_SECONDS:.0f} s.") from error
    found = re.search(r"largest difference to TensorFlow (\S+)", done.stdout)
    if done.returncode or found is None:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ProofFailed(f"The module that was written does not answer as TensorFlow did: {said}")
    return float(found[1])
