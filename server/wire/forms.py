"""What a tensor on the wire claims to be: element type and shape, and all that follows from the two.

Forms hold no values, so they are shared: requests that look alike share one. Nothing here allocates by a claim.
"""

from functools import lru_cache

from server.wire.dtypes import SERVED, ElementType, name_of
from server.wire.scanner import WireError, fields, int64, varint

MAX_RANK = 64
"""numpy's limit. TensorFlow's own is 254, but no kernel takes that many."""

MAX_SHAPE_BYTES = 1 << 16
"""The longest TensorShapeProto, names included: many times what 64 dimensions need."""

_INT64_MAX = 2**63 - 1
_DIM, _SIZE, _NAME = 0x12, 0x08, 0x12  # tags of TensorShapeProto's and of its Dim's fields
_LONGEST_KEPT = 256  # bytes of a shape; with the number of forms kept it bounds their memory


class TensorForm:
    """Type and shape of a tensor.

    Attributes:
        dtype: DataType number as sent; it may be one that no tensor can have.
        shape: Sizes as sent; they may be negative or absurd. TensorFlow ignores `unknown_rank` of a tensor.
        problem: Why there is no such array; "" if there is one.
        kind: The element type; None if `dtype` is not served.
        count: How many elements the shape has; 0 if there is a problem.
        nbytes: Bytes that the array takes; of strings, the references to them alone.
    """

    __slots__ = ("count", "dtype", "kind", "nbytes", "problem", "shape")

    def __init__(self, dtype: int, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.kind: ElementType | None = SERVED.get(dtype)
        self.count = self.nbytes = 0
        self.problem = self._settle()

    def _settle(self) -> str:
        """Count the elements; returns why they cannot be counted."""
        if self.kind is None:
            return f"elements of type {name_of(self.dtype)} are not served"
        if len(self.shape) > MAX_RANK:
            return f"{len(self.shape)} dimensions; {MAX_RANK} are the limit"
        itemsize = self.kind.itemsize
        count = extent = 1
        for size in self.shape:
            if size < 0:
                return f"a dimension of size {size}"
            count *= size
            extent *= size or 1
            # numpy minds the extent of empty arrays too, TensorFlow the order in which the product overflows.
            if count > _INT64_MAX or extent * itemsize > _INT64_MAX:
                return "more elements than 64 bits can count"
        self.count, self.nbytes = count, count * itemsize
        return ""


def form_of(dtype: int, shape: bytes, depth: int) -> TensorForm:
    """The form of a tensor.

    Args:
        dtype: DataType number.
        shape: The bytes of a TensorShapeProto, at most MAX_SHAPE_BYTES.
        depth: How many more levels of messages and groups are allowed within it.

    Raises:
        WireError: They are no TensorShapeProto.
    """
    return (_kept_form if len(shape) <= _LONGEST_KEPT else _form)(dtype, shape, depth)


def _form(dtype: int, shape: bytes, depth: int) -> TensorForm:
    sizes = [
        _dim(shape, start, stop, depth - 1) for tag, start, stop in fields(shape, 0, len(shape), depth) if tag == _DIM
    ]
    return TensorForm(dtype, tuple(sizes))


_kept_form = lru_cache(maxsize=1024)(_form)


def _dim(shape: bytes, start: int, stop: int, depth: int) -> int:
    """The size in one TensorShapeProto.Dim."""
    size = 0
    for tag, begin, end in fields(shape, start, stop, depth):
        if tag == _SIZE:
            size = int64(varint(shape, begin)[0])
        elif tag == _NAME:
            try:
                shape[begin:end].decode()
            except UnicodeDecodeError:
                raise WireError("it has a dimension whose name is not UTF-8") from None
    return size
