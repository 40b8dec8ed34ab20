"""The set-up itself: locks, layers, the image's recipe, and the serving environment without TensorFlow."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("serve", "convert", "dev")


def pins(lock: str) -> dict[str, str]:
    """Versions by package in a lock."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    return {m[1]: m[2] for m in re.finditer(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE)}


def test_what_is_tested_is_what_is_served() -> None:
    """The three locks agree on every version that they share, and each contains the smaller one."""
    serve, convert, dev = map(pins, LOCKS)
    assert serve.items() <= convert.items() <= dev.items()


def test_the_serving_environment_has_no_tensorflow() -> None:
    """Nothing of TensorFlow, Keras, torch or the exporters is installed where models are served."""
    assert not {"tensorflow", "keras", "tf-keras", "tf2onnx", "onnx", "torch", "h5py"} & pins("serve").keys()
    assert tuple(map(int, pins("serve")["protobuf"].split(".")[:2])) >= (7, 34)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock: str) -> None:
    """Pip refuses a file whose contents are not the ones that were locked."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_image_is_made_of_our_targets_and_locks() -> None:
    """The Dockerfile's steps are Make targets that exist, on files that exist; serving gets no TensorFlow."""
    recipe = (ROOT / "Dockerfile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = re.findall(r"RUN make ([a-z-]+)", recipe)
    assert used == ["setup-serve", "setup-convert"]
    assert set(used) <= targets
    for line in re.findall(r"^COPY (?!--from)(.+)$", recipe, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    serving = recipe.partition("AS serving")[2]
    assert "build-serving" in serving
    assert "convert" not in serving
    assert "HEALTHCHECK" in serving
    assert recipe.index("USER segue") < recipe.index("AS serving")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("server/wire/dtypes.py", "import grpc"),
        ("server/parity.py", "import tensorflow"),
        ("server/signatures.py", "import converter.errors"),
        ("server/app.py", "import onnxruntime"),
        ("converter/worker/run.py", "import protos.tensorflow.tensor_pb2"),
        ("converter/pipeline.py", "import tensorflow"),
    ],
)
def test_the_layers_are_enforced(tmp_path: Path, module: str, line: str) -> None:
    """One forbidden import, planted in a copy of the source, breaks the check."""
    for name in ("server", "converter", "protos", "pyproject.toml"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    planted = tmp_path / module
    planted.write_text(planted.read_text() + f"\n{line}  # planted\n")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_serving_environment_serves(tmp_path: Path) -> None:
    """`make setup-serve`, as the image does it, gives an environment that proves and answers without TensorFlow."""
    venv = tmp_path / "venv"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    command = ["make", "setup-serve", f"VENV={venv}", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=500)
    script = (
        "import importlib.util, sys\n"
        "from pathlib import Path\n"
        "from server.app import Server\n"
        "from server.config import ServerConfig\n"
        "from server.services.probe import probe\n"
        "assert importlib.util.find_spec('tensorflow') is None\n"
        "server = Server(ServerConfig(Path(sys.argv[1]), port=0, metrics_port=0, lame_duck_seconds=0))\n"
        "server.start()\n"
        "print(probe(f'localhost:{server.port}'), server.models.statuses('affine')[0].state.name)\n"
        "server.stop()\n"
    )
    from tests.packages import write_package  # noqa: PLC0415 - it needs onnx, which only this one test here needs

    write_package(tmp_path / "models" / "affine" / "1")
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-c", script, str(tmp_path / "models")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "SERVING AVAILABLE\n", done.stderr
