"""The models that are compared, and everything that the contenders need of one, in a folder.

    saved_model/   as TensorFlow wrote it          models/NAME/1   the package that Segue made of it
    weights.npz    its variables, for the native   native.json     the configuration of the native model
    inputs.npz     the batches, "4/pixel_values"   cache/          what backends compile

What is there already is used as it is.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from server.arrays import Array, save_arrays
from server.repository.package import open_package
from server.signatures import DEFAULT_SIGNATURE

ROOT: Final = Path(__file__).parents[2]

# transformers' ViT by the fields of its configuration. Others would need a native model to compare with.
MODELS: Final[Mapping[str, Mapping[str, str | int]]] = {
    "vit": {"hidden_act": "gelu_new"},
    "vit-small": {
        "hidden_act": "gelu_new", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "image_size": 32,
    },
}  # fmt: skip


def make(folder: Path, model: str, batches: Sequence[int]) -> None:
    """Fill the folder with what is missing."""
    fields = MODELS[model]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "native.json").write_text(json.dumps(fields))
    source = folder / "saved_model"
    if not source.exists():
        sizes = [f"{field}={value}" for field, value in fields.items() if field != "hidden_act"]
        _run("tests.models.vit", str(source), str(fields["hidden_act"]), *sizes)
    if not (folder / "models" / model / "1").exists():
        _run("converter.cli", str(source), "--name", model, "--repository", str(folder / "models"))
    if not (folder / "weights.npz").exists():
        _run("benchmarks.backends.run_tensorflow", str(folder))
    save_arrays(folder / "inputs.npz", inputs(folder, model, batches))


def inputs(folder: Path, model: str, batches: Sequence[int]) -> dict[str, Array]:
    """Batches of random rows of the shape and kind that the golden ones have, by batch and alias."""
    package = open_package(model, 1, folder / "models" / model / "1")
    signature = next(each for each in package.manifest.signatures if each.name == DEFAULT_SIGNATURE)
    golden = package.golden_arrays()
    rng = np.random.default_rng(0)
    arrays = {}
    for batch in batches:
        for alias, key in signature.golden[0].inputs.items():
            rows = (batch, *golden[key].shape[1:])
            arrays[f"{batch}/{alias}"] = rng.standard_normal(rows).astype(golden[key].dtype)
    return arrays


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
