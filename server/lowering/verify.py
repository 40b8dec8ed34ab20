"""Whether the compiled code computes what the module does.

Torch's compiler has been seen to compile a network of convolutions into other numbers without a word (docs/pytorch.md).
The server proves every backend on the package's own golden inputs; this finds the worst before anything is published,
while another way to compile is still at hand.
"""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import torch

from server.arrays import Array
from server.backends.aot_abi import AbiError, CompiledModel, Torch

# How far outputs may be apart, as a part of the largest number in them: this looks for wrong code, not for rounding.
_TOLERANCE: Final = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.1}
_FLOOR: Final = 1e-3

_FORBIDS_ONE: Final = re.compile(r"d\[(\d+)\]\[(\d+)\] (?:!= 1|> 1|>= 2)")

Module = Callable[..., Any]


class Differs(Exception):
    """The compiled code gives other answers; the text says where."""


def verify(library: Path, module: Module, inputs: Sequence[torch.Tensor], device: str, precision: str) -> None:
    """Run both on random numbers.

    Args:
        library: The compiled model.
        module: What it was made of.
        inputs: The sizes and dtypes; whole numbers are used as they are, since they may be positions in a table.
        device: Where both run.
        precision: For the tolerance.

    Raises:
        Differs: they do not agree, or the compiled code fails.
    """
    given = [_random(tensor, seed) for seed, tensor in enumerate(inputs)]
    wanted = module(*given)
    try:
        model = CompiledModel(Torch(Path(torch.__file__).parent / "lib"), library, device, 1)
        try:
            answers = model.run([_array(tensor) for tensor in given])
        finally:
            model.close()
    except AbiError as error:
        raise Differs(f"it fails: {error}") from error
    # Behind what the module answers may be whether a guard found fault (server/lowering/guarding.py).
    for index, (got, want) in enumerate(zip(answers[: len(wanted)], wanted, strict=True)):
        _require_close(got, _array(want), _TOLERANCE[precision], f"output {index}")


def without_ones(
    rules: Sequence[str], check: Callable[[Sequence[torch.Tensor]], None], inputs: Sequence[torch.Tensor],
    shapes: Sequence[Sequence[int | str]],
) -> list[str]:  # fmt: skip
    """The rules that remain when those that forbid the size one are tried out, each alone and with those before it.

    Torch assumes that no open axis has that size, or that nobody minds; mostly its code is right for it.

    Args:
        rules: As `server.lowering.ports` writes them.
        check: Raises if the compiled code is not right for inputs of such sizes.
        inputs: The inputs that it was traced with.
        shapes: Of each input: a size, or what stands for it, for each axis.
    """
    forbidden = {rule: found for rule in rules if (found := _FORBIDS_ONE.fullmatch(rule))}
    symbols = {rule: str(shapes[int(found[1])][int(found[2])]) for rule, found in forbidden.items()}
    allowed: list[str] = []
    for symbol in dict.fromkeys(symbols.values()):
        trials = [{symbol}, {symbol, *allowed}] if allowed else [{symbol}]
        if all(_is_right(check, _shrunk(inputs, shapes, trial)) for trial in trials):
            allowed.append(symbol)
    return [rule for rule in rules if symbols.get(rule) not in allowed]


def _shrunk(
    inputs: Sequence[torch.Tensor], shapes: Sequence[Sequence[int | str]], symbols: Collection[str]
) -> list[torch.Tensor]:
    return [
        tensor[tuple(slice(0, 1 if size in symbols else None) for size in sizes)]
        for tensor, sizes in zip(inputs, shapes, strict=True)
    ]


def _is_right(check: Callable[[Sequence[torch.Tensor]], None], inputs: Sequence[torch.Tensor]) -> bool:
    try:
        check(inputs)
    except Exception:  # noqa: BLE001 - the module itself may not take such sizes: then the rule is right
        return False
    return True


def _random(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor.contiguous()
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)


def _array(tensor: torch.Tensor) -> Array:
    if tensor.dtype is torch.bfloat16:
        return tensor.cpu().contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return np.asarray(tensor.detach().cpu().contiguous().numpy())


def _require_close(got: Array, want: Array, tolerance: float, name: str) -> None:
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        raise Differs(f"{name} is {got.dtype}{got.shape} instead of {want.dtype}{want.shape}")
    if got.size == 0 or want.dtype.kind in "biu":  # of whole numbers, a rounding before may make others
        return
    left, right = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(right)
    if not np.array_equal(finite, np.isfinite(left)):
        raise Differs(f"{name} has other infinities than the module's")
    if not finite.any():
        return
    error = np.abs(left[finite] - right[finite]).max()
    if error > tolerance * max(np.abs(right[finite]).max(), _FLOOR):
        raise Differs(f"{name} differs by {error:.3g}")
