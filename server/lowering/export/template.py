"""What every written model has in common: the frame of model.py, and the README beside it."""

from typing import Final

MODEL: Final = '''"""{title}

Written by Segue from {source}; made for fine-tuning and for reading. It needs torch, safetensors and numpy.

    from model import Model
    model = Model.load()

`python model.py` compares its answers with those that TensorFlow gave before the conversion.
"""

from __future__ import annotations

import math
from pathlib import Path
{imports}
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent

# Parameter or buffer -> its name in the state_dict: that of the TensorFlow variable, where it is known.
NAMES = {names}

# Not trained in TensorFlow either.
FROZEN = {frozen}

# Two places, one parameter.
TIED = {tied}

# Requests and TensorFlow's answers: keys of golden.npz, by the names of inputs and outputs.
GOLDEN = {golden}

# |got - expected| <= absolute + relative * |expected|, by output.
TOLERANCES = {tolerances}


def put(root: nn.Module, path: str, what: nn.Module | torch.Tensor, *, persistent: bool = False) -> None:
    """Put a layer, a parameter or a constant under a module, with modules made on the way."""
    *above, leaf = path.split(".")
    for part in above:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(what, nn.Module):
        root.add_module(leaf, what)
    elif isinstance(what, nn.Parameter):
        root.register_parameter(leaf, what)
    else:
        root.register_buffer(leaf, what, persistent=persistent)


def finish(model: nn.Module) -> None:
    """Share what is shared, freeze what is frozen, and name the state_dict as TensorFlow named its variables."""
    for path, other in TIED.items():
        holder, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(holder), leaf, model.get_parameter(other))
    for path in FROZEN:
        model.get_parameter(path).requires_grad_(False)
    model.register_state_dict_post_hook(_as_tensorflow)
    model.register_load_state_dict_pre_hook(_as_torch)


def _as_tensorflow(module: nn.Module, state: dict, prefix: str, _: dict) -> None:
    for path in TIED:
        state.pop(prefix + path, None)
    for path, name in NAMES.items():
        if prefix + path in state:
            state[prefix + name] = state.pop(prefix + path)


def _as_torch(module: nn.Module, state: dict, prefix: str, *_: object) -> None:
    for path, name in NAMES.items():
        if prefix + name in state:
            state[prefix + path] = state.pop(prefix + name)
    for path, other in TIED.items():
        if prefix + other in state:
            state[prefix + path] = state[prefix + other]


{classes}

# The operators as the ONNX standard defines them, where torch has no function that is the same.

{operators}

def check(folder: Path = HERE) -> float:
    """Compare the model's answers with TensorFlow's.

    Returns:
        The largest absolute difference.

    Raises:
        SystemExit: An answer differs by more than it may.
    """
    arrays = np.load(folder / "golden.npz", allow_pickle=False)
    model, worst = Model.load(folder), 0.0
    for number, case in enumerate(GOLDEN):
        inputs = {{name: torch.from_numpy(arrays[key]) for name, key in case["inputs"].items()}}
        with torch.no_grad():
            answers = model(**inputs)
        for name, key in case["outputs"].items():
            got, want = answers[name].numpy(), arrays[key]
            absolute, relative = TOLERANCES[name]
            if got.shape != want.shape or got.dtype != want.dtype:
                kinds = f"{{got.dtype}}{{got.shape}}, not {{want.dtype}}{{want.shape}}"
                raise SystemExit(f"case {{number}}, {{name}}: {{kinds}}")
            if not np.allclose(got, want, rtol=relative, atol=absolute, equal_nan=True):
                raise SystemExit(f"case {{number}}, {{name}}: the answer is not TensorFlow's")
            finite = np.isfinite(want) if want.dtype.kind in "fc" else np.ones(want.shape, bool)
            difference = np.abs(got[finite].astype(np.float64) - want[finite].astype(np.float64))
            worst = max(worst, float(difference.max(initial=0.0)))
    return worst


if __name__ == "__main__":
    print(f"{{len(GOLDEN)}} golden cases; largest difference to TensorFlow {{check():.3g}}")
'''

LOADING: Final = '''
    @classmethod
    def load(cls, folder: Path = HERE) -> Model:
        """The model with the weights of model.safetensors, in evaluation mode."""
        model = cls()
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return model.eval()

    def save(self, path: Path) -> None:
        """Write the weights, as `load` reads them."""
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, path)
'''

README: Final = """# {title}

A PyTorch module with the weights of {source}. Written by Segue; it needs `torch`, `safetensors` and
`numpy`, and nothing of TensorFlow, ONNX or Segue.

| file | what it is |
|---|---|
| `model.py` | the module: layers in `__init__`, one call after the other in `forward` |
| `model.safetensors` | the weights, by the names of TensorFlow's variables |
| `golden.npz` | inputs, and what TensorFlow answered |

`python model.py` checks the module against those answers (largest difference when it was written: {difference:.3g}).

## Use

```python
import torch
from model import Model

model = Model.load()
with torch.no_grad():
    answer = model({call})
```

`forward` takes the signature's inputs by name, and returns a dictionary of its outputs.

| | name | element type | shape |
|---|---|---|---|
{ports}

## Fine-tuning

```python
model = Model.load().train()
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5)
for {inputs}, wanted in batches:
    loss = torch.nn.functional.{loss}(model({call})[{output!r}], wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.save("model.safetensors")
```

{trainable:,} numbers train, in {parameters} parameters{frozen}. Layers that behave otherwise in training come back
as they answered in TensorFlow: dropout is not in the model any more, and batch normalisation {norms}.

## Weights

Keys of the state_dict are the names of TensorFlow's variables. Where the variable was merged into others by the export,
or where there is no name to be sure of, it is the place in the module. Layers hold their weights as torch does: kernels
of dense layers are transposed, those of convolutions have their channels first.

| key | in the module | shape |
|---|---|---|
{weights}
"""
