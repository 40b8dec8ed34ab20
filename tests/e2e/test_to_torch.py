"""`convert-and-deploy to-torch`, from real TensorFlow models to a module that is trained without any of us."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from converter.exits import ExitCode
from tests.conftest import ROOT
from tests.e2e.processes import convert

_TUNE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy, torch
from model import GOLDEN, Model, check
assert check() <= float(sys.argv[2])
model = Model.load().train()
arrays = numpy.load(sys.argv[1] + "/golden.npz")
inputs = {name: torch.from_numpy(arrays[key]) for name, key in GOLDEN[-1]["inputs"].items()}
before = {name: one.detach().clone() for name, one in model.named_parameters()}
trained = [one for one in model.parameters() if one.requires_grad]
optimizer = torch.optim.Adam(trained, lr=1e-4)
losses = []
for _ in range(int(sys.argv[3])):
    answer = next(iter(model(**inputs).values()))
    loss = (answer - torch.arange(answer.shape[-1])).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
same = [name for name, one in model.named_parameters() if one.requires_grad and torch.equal(one, before[name])]
assert not same, same
assert not {"server", "converter", "onnx", "onnx2torch", "tensorflow"} & set(sys.modules)
print(sum(one.numel() for one in trained))
"""


def tuned(folder: Path, difference: float, steps: int = 4) -> int:
    """Check and train a written module in a process that has nothing but torch and the folder.

    Returns:
        How many numbers were trained.
    """
    command = [sys.executable, "-I", "-c", _TUNE, str(folder), str(difference), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def written(tmp_path: Path, name: str, *command: str) -> Path:
    """Make a network, convert it, and write it as a module."""
    source = tmp_path / command[1]
    made = subprocess.run(
        [sys.executable, "-m", command[0], *(part.format(source) for part in command[2:])], cwd=ROOT, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    models = tmp_path / "models"
    done = convert(source, "--name", name, "--repository", models)
    assert done.returncode == ExitCode.DONE, done.stderr
    done = convert("to-torch", name, "--repository", models, "--out", tmp_path / "out", "--json")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.slow
def test_a_recurrent_network_comes_back(tmp_path: Path) -> None:
    """GRU and LSTM as torch's layers, every weight by the name that TensorFlow gave it."""
    out = written(tmp_path, "series", "tests.models.networks", "series.h5", "recurrent", "{}", "width=8")
    names = set(load_file(out / "model.safetensors"))
    cells = [f"bidirectional/{way}_gru/gru_cell" for way in ("forward", "backward")]
    wanted = {f"{cell}/{leaf}" for cell in cells for leaf in ("kernel", "recurrent_kernel", "bias/0", "bias/1")}
    wanted |= {f"lstm/lstm_cell/{leaf}" for leaf in ("kernel", "recurrent_kernel", "bias")}
    wanted |= {"classes/kernel", "classes/bias"}
    assert wanted <= names
    assert tuned(out, 1e-5) == 2 * (6 + 8 + 2) * 24 + (16 + 8 + 1) * 32 + 27
    source = (out / "model.py").read_text()
    assert "nn.GRU(6, 8, bidirectional=True)" in source
    assert "nn.LSTM(16, 8)" in source


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_the_network_of_the_published_attempt_comes_back(tmp_path: Path) -> None:
    """ViT-Base: 85.8 million numbers, every one by its name, all of them trained."""
    out = written(tmp_path, "vit", "tests.models.vit", "vit", "{}", "gelu_new")
    assert tuned(out, 5e-6, steps=2) == 85_800_194
    names = load_file(out / "model.safetensors")
    assert len(names) == 200
    assert all(name.startswith("tf_vi_t_for_image_classification/") for name in names)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing"], ExitCode.REPOSITORY, "There is no model 'nothing'"),
        (["../up"], ExitCode.USAGE, "cannot be a model's name"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path: Path, arguments: list[str], code: ExitCode, words: str) -> None:
    """With an exit code, and nothing written."""
    done = convert("to-torch", *arguments, "--repository", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == code
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_the_command_needs_no_tensorflow_and_no_torch_to_say_what_is_missing(tmp_path: Path) -> None:
    """Where torch is not installed, the text has the command that installs it."""
    script = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else real(name, *rest)\n"
        "from converter.cli import main\n"
        "try: main(['to-torch', 'm', '--out', sys.argv[1]])\n"
        "finally: assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.CONVERSION
    assert "pip install 'segue-serving[torch]'" in done.stderr
