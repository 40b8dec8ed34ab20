"""Our operators, one module for each family, and the one table that they make."""

from collections.abc import Mapping
from typing import Final

from server.lowering.operators import (
    attention,
    convolution,
    index,
    math,
    norm,
    pool,
    quantized,
    random,
    recurrent,
    reduce,
    resize,
    sequences,
    shape,
)
from server.lowering.table import Operator, merged

OPERATORS: Final[Mapping[str, Operator]] = merged(
    attention.OPERATORS, convolution.OPERATORS, index.OPERATORS, math.OPERATORS, norm.OPERATORS, pool.OPERATORS,
    quantized.OPERATORS, random.OPERATORS, recurrent.OPERATORS, reduce.OPERATORS, resize.OPERATORS,
    sequences.OPERATORS, shape.OPERATORS,
)  # fmt: skip
