"""ONNX's element types as torch's, and the tensors of a file as torch tensors."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

TORCH_DTYPES: Final[Mapping[int, torch.dtype]] = {
    TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64, TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16, TensorProto.BOOL: torch.bool, TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16, TensorProto.INT32: torch.int32, TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8, TensorProto.UINT16: torch.uint16, TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64, TensorProto.COMPLEX64: torch.complex64, TensorProto.COMPLEX128: torch.complex128,
}  # fmt: skip


def to_torch(tensor: onnx.TensorProto) -> torch.Tensor:
    """A tensor of the file, copied.

    Raises:
        KeyError: torch has no such element type (strings, four- and eight-bit numbers).
    """
    dtype = TORCH_DTYPES[tensor.data_type]
    array = numpy_helper.to_array(tensor)
    if dtype is torch.bfloat16:  # which numpy only knows through an extension that torch does not read
        return torch.from_numpy(np.array(array).view(np.int16)).view(dtype)
    return torch.from_numpy(np.array(array))
