"""In which precision a module computes: torch's autocast around it.

Casting all weights and values instead measured no faster on ViT-Base and up to 1.7 times less exact (docs/pytorch.md):
autocast leaves sums, norms and softmax in float32.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from server.lowering.dtypes import TORCH_DTYPES
from server.lowering.module import LoweredModule

PRECISIONS: Final[Mapping[str, torch.dtype]] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class AtPrecision(nn.Module):
    """A lowered module that computes in a lower precision where autocast holds that to be safe.

    It takes and returns what the module does, in the dtypes that the ONNX file gives.
    """

    def __init__(self, module: LoweredModule, precision: str, device: str) -> None:
        """Wrap a module.

        Args:
            module: What computes.
            precision: "fp32" changes nothing; "bf16" or "fp16".
            device: "cpu" or "cuda": what is safe differs.
        """
        super().__init__()
        self.module = module
        self._lower = PRECISIONS.get(precision)
        self._device = device

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute; see `LoweredModule`."""
        if self._lower is None:
            answer: tuple[Any, ...] = self.module(*inputs)
            return answer
        with torch.autocast(self._device, self._lower):
            answer = self.module(*inputs)
        kept = zip(answer, self.module.outputs, strict=True)
        return tuple(value.to(TORCH_DTYPES[port.dtype]) if value.is_floating_point() else value for value, port in kept)
