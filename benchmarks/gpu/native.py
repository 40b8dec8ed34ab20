"""ViT-Base as PyTorch people have it, with the weights that our own module gets, by TensorFlow's names.

That is transformers' ViTForImageClassification, of either naming (before and since its version 5); where transformers
is not installed, the same network written here, whose parameters bear the names of the former.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from server.arrays import Array

_ATTEMPT: Final = "gelu_new"  # the activation of the published attempt: GELU by tanh
_EPSILON: Final = 1e-12
# TensorFlow's name, its first part left out -> transformers' before version 5; and from those -> since version 5.
_NAMES: Final = (
    (r"layer_\._(\d+)", r"layer.\1"),
    (r"/", "."),
    (r"\.(kernel|gamma)$", ".weight"),
    (r"\.beta$", ".bias"),
)
_NAMES_5: Final = (
    (r"vit\.encoder\.layer\.(\d+)", r"vit.layers.\1"),
    (r"attention\.attention\.(query|key|value)", lambda found: f"attention.{found[1][0]}_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(layers\.\d+)\.output\.dense", r"\1.mlp.fc2"),
)


class _Embeddings(nn.Module):
    def __init__(self, width: int, patch: int, places: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, places + 1, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, width, patch, patch)})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embeddings["projection"](images).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(images.shape[0], -1, -1)
        return torch.cat((first, patches), 1) + self.position_embeddings


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        batch, length, width = rows.shape
        query, key, value = (
            self.attention[name](rows).view(batch, length, self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.output["dense"](mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class _Layer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, width)})
        self.layernorm_before = nn.LayerNorm(width, _EPSILON)
        self.layernorm_after = nn.LayerNorm(width, _EPSILON)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows + self.attention(self.layernorm_before(rows))
        inner = functional.gelu(self.intermediate["dense"](self.layernorm_after(rows)), approximate="tanh")
        out: torch.Tensor = self.output["dense"](inner) + rows
        return out


class _Vit(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(768, 16, 196)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(768, 3072, 12) for _ in range(layers))})
        self.layernorm = nn.LayerNorm(768, _EPSILON)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self.embeddings(images)
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined] # a ModuleList
            rows = layer(rows)
        out: torch.Tensor = self.layernorm(rows)
        return out


class PlainViT(nn.Module):
    """ViT-Base with two labels in plain PyTorch."""

    def __init__(self, layers: int) -> None:
        """Make one.

        Args:
            layers: Twelve in the model of that name.
        """
        super().__init__()
        self.vit = _Vit(layers)
        self.classifier = nn.Linear(768, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [batch, 3, 224, 224] to logits [batch, 2]."""
        out: torch.Tensor = self.classifier(self.vit(images)[:, 0])
        return out


class AtDtype(nn.Module):
    """A model as a function of one tensor, which takes and gives float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, device: str, *, autocast: bool = False) -> None:
        """Wrap a model.

        Args:
            model: What computes; its weights are cast unless autocast does it.
            dtype: What it computes in.
            device: "cpu" or "cuda".
            autocast: Cast what autocast holds to be safe, as our own module does, instead of all.
        """
        super().__init__()
        self.model = model.to(device, torch.float32 if autocast else dtype)
        self._dtype, self._device, self._autocast = dtype, device, autocast

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor]:
        """Images [batch, 3, 224, 224] to logits [batch, 2]."""
        if self._autocast:
            with torch.autocast(self._device, self._dtype):
                answer: Any = self.model(images[0])
        else:
            answer = self.model(images[0].to(self._dtype))
        logits: torch.Tensor = answer if isinstance(answer, torch.Tensor) else answer.logits
        return (logits.to(torch.float64 if self._dtype is torch.float64 else torch.float32),)


def build(values: Mapping[str, Array], layers: int, kind: str = "") -> tuple[nn.Module, str]:
    """The native model with every weight taken from TensorFlow's.

    Args:
        values: By TensorFlow's names, in its layouts.
        layers: How many.
        kind: "transformers" or "plain"; by default the former where it is installed.

    Returns:
        The model, and what it is.

    Raises:
        ValueError: a weight is left over or missing.
    """
    model, name = _made(layers, kind)
    state, taken = model.state_dict(), set()
    for variable, array in values.items():
        key = _place(variable, state)
        turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T if variable.endswith("/kernel") else array
        state[key].copy_(torch.from_numpy(turned.copy()))
        taken.add(key)
    if missing := sorted(set(state) - taken):
        raise ValueError(f"nothing has the weights of {missing}")
    return model.eval().requires_grad_(requires_grad=False), name


def _made(layers: int, kind: str) -> tuple[nn.Module, str]:
    if kind != "plain":
        try:
            with _told(USE_TF="0", USE_TORCH="1"):
                import transformers  # noqa: PLC0415 - where it is not there, the other does

                config = transformers.ViTConfig(hidden_act=_ATTEMPT, num_hidden_layers=layers)
                return transformers.ViTForImageClassification(config), f"transformers {transformers.__version__}"
        except ImportError:
            if kind:
                raise
    return PlainViT(layers), "plain PyTorch"


@contextmanager
def _told(**settings: str) -> Iterator[None]:
    """Set variables that a package reads when it is imported; no other process inherits them later."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _place(variable: str, state: Mapping[str, torch.Tensor]) -> str:
    key = variable.partition("/")[2]
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    if key not in state:
        for pattern, renamed in _NAMES_5:
            key = re.sub(pattern, renamed, key)
    if key not in state:
        raise ValueError(f"TensorFlow's {variable} has no place in the native model: {key}")
    return key
