"""Sequences of tensors: tuples, since the code of a module is known before it runs."""

from typing import Final

import torch

from server.lowering.table import Table

OPERATORS: Final = Table()
_MISSING: Final = "onnx2torch has none"
Sequence = tuple[torch.Tensor, ...]


@OPERATORS.add("SequenceEmpty", versions=(11, 11), why=_MISSING)
def sequence_empty(*, dtype: int = 1) -> Sequence:  # noqa: ARG001 - an empty tuple has no element type
    """SequenceEmpty."""
    return ()


@OPERATORS.add("SequenceConstruct", versions=(11, 11), why=_MISSING)
def sequence_construct(*tensors: torch.Tensor) -> Sequence:
    """SequenceConstruct."""
    return tensors


@OPERATORS.add("SequenceInsert", versions=(11, 11), host=(2,), why=_MISSING)
def sequence_insert(sequence: Sequence, tensor: torch.Tensor, position: int | tuple[int] | None = None) -> Sequence:
    """SequenceInsert; at the end where no position is given."""
    at = position[0] if isinstance(position, tuple) else position
    at = len(sequence) if at is None else at + len(sequence) if at < 0 else at
    return (*sequence[:at], tensor, *sequence[at:])


@OPERATORS.add("SequenceAt", versions=(11, 11), host=(1,), why=_MISSING)
def sequence_at(sequence: Sequence, position: int) -> torch.Tensor:
    """SequenceAt."""
    return sequence[position]


@OPERATORS.add("SequenceLength", versions=(11, 11), why=_MISSING)
def sequence_length(sequence: Sequence, *, like: torch.Tensor) -> torch.Tensor:
    """SequenceLength."""
    return torch.scalar_tensor(len(sequence), dtype=torch.int64, device=like.device)


@OPERATORS.add("ConcatFromSequence", versions=(11, 11), why=_MISSING)
def concat_from_sequence(sequence: Sequence, *, axis: int, new_axis: int = 0) -> torch.Tensor:
    """ConcatFromSequence."""
    return torch.stack(sequence, axis) if new_axis else torch.cat(sequence, axis)
