"""What a compiled model takes and gives, as the JSON that the server checks each call by."""

import re
from collections.abc import Sequence
from typing import Any, Final

from server.backends.sizes import SizeRule
from server.lowering.dtypes import TORCH_DTYPES
from server.lowering.exporting import Exported, NotExportable
from server.lowering.module import Port

# What torch writes around the size of an input's axis, and whole numbers, where it once divided by it.
_FLOAT: Final = re.compile(r"torch\.sym_float\((d\[\d+\]\[\d+\])\)|(\d+)\.0\b|torch\.sym_(min|max)\b")
# How it writes that size.
_SIZE: Final = re.compile(r"L\[['\"]\w+['\"]\]\[(\d+)\]\.size\(\)\[(\d+)\]")


def describe(inputs: Sequence[Port], outputs: Sequence[Port], exported: Exported) -> dict[str, Any]:
    """The ports of a compiled model.

    Returns:
        `inputs`: name, numpy dtype and, for each axis, the size that the ONNX file fixes or None. `outputs`: name,
        dtype and rank. `rules`: expressions over sizes (`server.backends.sizes`) that hold for every call.

    Raises:
        NotExportable: the graph holds only for sizes that no rule can tell, or differs from what ONNX promises.
    """
    for port, rank, dtype in zip(outputs, exported.output_ranks, exported.output_dtypes, strict=True):
        if port.shape is not None and len(port.shape) != rank:
            raise NotExportable(f"output {port.name!r} would have rank {rank}, and the ONNX file says {port.shape}")
        if TORCH_DTYPES.get(port.dtype, dtype) != dtype:
            raise NotExportable(f"output {port.name!r} would be of {dtype}")
    return {
        "inputs": [
            {
                "name": port.name,
                "dtype": _dtype(TORCH_DTYPES[port.dtype]),
                "dims": [size if isinstance(size, int) else None for size in port.shape or ()],
            }
            for port in inputs
        ],
        "outputs": [
            {"name": port.name, "dtype": _dtype(dtype), "rank": rank}
            for port, rank, dtype in zip(outputs, exported.output_ranks, exported.output_dtypes, strict=True)
        ],
        "rules": _rules(exported),
    }


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _rules(exported: Exported) -> list[str]:
    rules = [_FLOAT.sub(r"\1\2\3", _SIZE.sub(r"d[\1][\2]", guard)) for guard in exported.guards]
    for index, shape in enumerate(exported.shapes):
        for axis, size in enumerate(shape):
            least, greatest = exported.ranges.get(str(size), (0, None))
            if least > 0:
                rules.append(f"d[{index}][{axis}] >= {least}")
            if greatest is not None:
                rules.append(f"d[{index}][{axis}] <= {greatest}")
    for rule in rules:
        try:
            SizeRule(rule)
        except ValueError as error:
            raise NotExportable(f"it would hold only for some inputs: {rule}") from error
    return sorted(set(rules))
