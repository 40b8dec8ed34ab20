"""A folder of packages that a GPU machine without a network lacks: `python -m benchmarks.gpu.pack OUT`.

What is installed here is copied, if it runs under every Python; `--wheels 3.12 NAME==VERSION …` has pip fetch others,
made for that Python, without what they need in turn. The machine itself must have torch with CUDA, numpy and a C++
compiler. There, `PYTHONPATH=OUT` finds the packages.
"""

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PACKAGES: Final = ("onnx2torch", "protobuf", "prometheus-client")
"""What images of PyTorch usually lack, or have in a version too old for our generated code."""
LARGEST: Final = 60_000_000
_COMPILED: Final = {".so", ".pyd", ".dylib"}
# What programs need, not what is imported.
_LEFT_OUT: Final = ("..", "bin", "__pycache__")
_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class CannotPack(Exception):
    """A package cannot be carried; says why and what to do."""


def copy(name: str, out: Path) -> None:
    """Copy an installed package.

    Raises:
        CannotPack: it is not installed, or runs under this Python alone.
    """
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise CannotPack(f"{name} is not installed here") from error
    for file in files:
        if any(part in _LEFT_OUT for part in file.parts):
            continue
        if file.suffix in _COMPILED and ".abi3." not in file.name:
            raise CannotPack(f"{name} is compiled for this Python: give --wheels 3.12 {name}==VERSION instead")
        target = out / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(file.locate()), target)


def fetch(python: str, names: Sequence[str], out: Path) -> None:
    """Have pip download wheels for another Python on Linux, and unpack them.

    Raises:
        CannotPack: pip finds none.
    """
    with tempfile.TemporaryDirectory() as folder:
        platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", python, "--implementation", "cp", *platforms, "-d", folder, *names]
        if subprocess.run(command, check=False).returncode != 0:
            raise CannotPack(f"pip finds no wheels of {', '.join(names)} for Python {python}")
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(out)


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument("--packages", default=",".join(PACKAGES), help="to copy, with commas")
    parser.add_argument("--wheels", nargs="+", default=[], metavar=("PYTHON", "NAME==VERSION"), help="to fetch")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    # Whatever runs the machine's version control leaves it alone.
    (options.out / ".gitignore").write_text("*\n")
    try:
        for name in filter(None, options.packages.split(",")):
            copy(name, options.out)
        if options.wheels:
            fetch(options.wheels[0], options.wheels[1:], options.out)
    except CannotPack as error:
        parser.exit(1, f"{error}\n")
    total = size(options.out)
    print(f"{options.out}: {total / 1e6:.1f} MB")
    if total > LARGEST:
        parser.exit(1, f"that is more than the {LARGEST / 1e6:.0f} MB that may be carried\n")


if __name__ == "__main__":
    main()
