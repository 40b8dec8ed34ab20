"""The same model as PyTorch people have it: transformers' ViTForImageClassification with TensorFlow's weights.

native-eager, native-compiled          float32
native-eager-bf16, …-compiled-bf16     the weights cast to bfloat16, as `from_pretrained(torch_dtype=…)` does
native-autocast-bf16, native-compiled-autocast-bf16    weights in float32, torch.autocast

Compiled means ahead of time by AOTInductor with frozen weights and a dynamic batch, as our own module is. That one
computes in bfloat16 where autocast does: native-compiled-autocast-bf16 is what is compiled the same way.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

os.environ.update(USE_TF="0", USE_TORCH="1", CUDA_VISIBLE_DEVICES="-1")  # read on import

import torch
from transformers import ViTConfig, ViTForImageClassification
from transformers.modeling_tf_pytorch_utils import (
    TransposeType,
    convert_tf_weight_name_to_pt_weight_name,
)

from benchmarks.backends.contender import Run
from server.arrays import Array, load_arrays

NAMES: Final = (
    "native-eager", "native-compiled", "native-eager-bf16", "native-compiled-bf16", "native-autocast-bf16",
    "native-compiled-autocast-bf16",
)  # fmt: skip


class Logits(torch.nn.Module):
    """The model as a function of one tensor, which gives float32."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype, *, autocast: bool) -> None:
        super().__init__()
        self.model = model.to(torch.float32 if autocast else dtype)
        self.dtype = dtype
        self.autocast = autocast

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images [batch, 3, size, size] to logits [batch, labels]."""
        if self.autocast:
            with torch.autocast("cpu", self.dtype):
                logits: torch.Tensor = self.model(pixel_values).logits
        else:
            logits = self.model(pixel_values.to(self.dtype)).logits
        return logits.float()


def build(folder: Path) -> torch.nn.Module:
    """The native model with every weight taken from TensorFlow's.

    Raises:
        ValueError: a weight is left over or missing.
    """
    model = ViTForImageClassification(ViTConfig(**json.loads((folder / "native.json").read_text())))
    state = model.state_dict()
    taken = set()
    for name, array in load_arrays(folder / "weights.npz").items():
        key, transpose = convert_tf_weight_name_to_pt_weight_name(name, "", array.shape)
        key = key if key in state else key.partition(".")[2]
        if key not in state:
            raise ValueError(f"TensorFlow's {name} has no place in the native model: {key}")
        state[key].copy_(torch.from_numpy(_turned(array, transpose)))
        taken.add(key)
    if missing := sorted(set(state) - taken):
        raise ValueError(f"TensorFlow's model does not have {missing}")
    module: torch.nn.Module = model.eval().requires_grad_(requires_grad=False)
    return module


def _turned(array: Array, transpose: TransposeType) -> Array:
    if transpose is TransposeType.CONV2D:
        return array.transpose(3, 2, 0, 1).copy()
    return array.T.copy() if transpose is TransposeType.SIMPLE else array


def _compiled(module: Logits, folder: Path, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    file = folder / "cache" / f"{name}-{torch.__version__}.pt2"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        size: Any = module.model.config.image_size  # type: ignore[union-attr] # transformers has no types
        example = torch.zeros(2, 3, size, size)
        batch = torch.export.Dim("batch", min=1, max=4096)
        exported = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - where torch's documentation has it
            exported, package_path=str(file), inductor_configs={"freezing": True}
        )
    loaded: Callable[[torch.Tensor], torch.Tensor] = torch._inductor.aoti_load_package(str(file))  # noqa: SLF001 - as above
    return loaded


def load(name: str, model: str, folder: Path) -> Run:  # noqa: ARG001 - the folder has one model
    """Make the contender of that name, compiling it if it is not in the folder's cache.

    Raises:
        LookupError: there is none of that name.
    """
    if name not in NAMES:
        raise LookupError(f"{name}: there is no native model of that name")
    dtype = torch.bfloat16 if name.endswith("-bf16") else torch.float32
    module = Logits(build(folder), dtype, autocast="autocast" in name)
    function: Callable[[torch.Tensor], torch.Tensor] = module
    if "compiled" in name:
        with torch.no_grad():
            function = _compiled(module, folder, name)

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        with torch.inference_mode():
            return {"logits": function(torch.from_numpy(inputs["pixel_values"])).numpy()}

    return run
