"""Arrays in one file: numpy's npz, extended by TensorFlow's strings and by bfloat16, without pickle.

Here is the file format that carries representative inputs and TensorFlow's answers between processes and inside model
packages. Nothing here may import more than numpy and ml_dtypes: the converter's child process, which has TensorFlow
loaded, uses this module too.

Beside plain entries a file holds
    KEY#bytes + KEY#ends   a string tensor: all strings concatenated (uint8), and where each one ends (int64, with the
                           tensor's shape)
    KEY#bfloat16           a bfloat16 tensor, as its uint16 bit patterns
Members are stored uncompressed: tensors of floats hardly shrink, and a file that cannot expand cannot be a bomb.
Equal content gives equal bytes (sorted keys, fixed timestamps), since package files are known by their digest.
"""

import errno
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_TOTAL_BYTES: Final = 16 << 30  # of all members after decompression; more than any package's golden file
_BYTES: Final = "#bytes"
_ENDS: Final = "#ends"
_BFLOAT16: Final = "#bfloat16"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip file can hold
_KINDS: Final = "biufcSU"


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to a file that `load_arrays` reads back unchanged.

    Args:
        path: The file to write; replaced if it exists.
        arrays: Any shapes, also (); dtypes bool, integer, float, complex, bfloat16, or object holding `bytes` only.
            Keys may hold any character but NUL.

    Raises:
        ValueError: A key or a dtype that the format cannot hold.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key in sorted(arrays):
            if "\0" in key or key.endswith((_BYTES, _ENDS, _BFLOAT16)):
                raise ValueError(f"{key!r} cannot be the key of an array")
            for name, part in _parts(key, np.asarray(arrays[key], order="C")).items():
                info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
                with archive.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, part, version=(1, 0), allow_pickle=False)


def load_arrays(path: Path, *, max_total_bytes: int = MAX_TOTAL_BYTES) -> dict[str, Array]:
    """Read a file written by `save_arrays`, or by numpy's `savez` and `savez_compressed`.

    Args:
        path: The file.
        max_total_bytes: What all members together may hold once decompressed, in bytes.

    Returns:
        Arrays by key, in the file's order. numpy's own string arrays (`U` as UTF-8, and `S`) come as object arrays of
        `bytes`, like every other string tensor.

    Raises:
        ValueError: The file is damaged, larger than allowed, or holds something that is not a plain array.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _joined(_members(archive, max_total_bytes))
    except MemoryError:
        raise
    except Exception as error:
        # zipfile, its decompressors and numpy answer damage with whatever fails in them, from struct.error to KeyError.
        # That the file cannot be read is told by an OSError with a number, but EINVAL is an offset before its begin.
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise
        raise ValueError(f"{path.name} is not a file of arrays: {error}") from error


def is_string(array: Array) -> bool:
    """Whether an array holds a string tensor, that is, `bytes` objects."""
    return array.dtype == np.dtype(object)


def _parts(key: str, array: Array) -> dict[str, Array]:
    if array.dtype == ml_dtypes.bfloat16:
        return {key + _BFLOAT16: array.view(np.uint16)}
    if is_string(array):
        values = list(array.flat)
        if not all(isinstance(value, bytes) for value in values):
            raise ValueError(f"array {key!r} holds objects other than bytes")
        ends = np.cumsum([len(value) for value in values], dtype=np.int64).reshape(array.shape)
        return {key + _BYTES: np.frombuffer(b"".join(values), np.uint8), key + _ENDS: ends}
    if array.dtype.kind not in "biufc":
        raise ValueError(f"array {key!r} has dtype {array.dtype}, which the file cannot hold")
    return {key: array}


def _members(archive: zipfile.ZipFile, max_total_bytes: int) -> dict[str, Array]:
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if total > max_total_bytes:
        raise ValueError(f"its arrays take {total} bytes, and {max_total_bytes} are allowed")
    members: dict[str, Array] = {}
    for info in infos:
        key = info.filename.removesuffix(".npy")
        if key == info.filename or key in members:
            raise ValueError(f"its member {info.filename!r} is not an array, or is there twice")
        members[key] = _read(info.filename, archive.read(info))
    return members


def _read(name: str, data: bytes) -> Array:
    """Read one member; its header must account for every byte of it before anything is allocated by it."""
    stream = io.BytesIO(data)
    shape, fortran, dtype = _header(name, stream)
    if dtype.kind not in _KINDS or dtype.itemsize == 0 or any(size < 0 for size in shape):
        raise ValueError(f"{name!r} has dtype {dtype} and shape {shape}")
    offset = stream.tell()
    if math.prod(shape) * dtype.itemsize != len(data) - offset:
        raise ValueError(f"{name!r} holds {len(data) - offset} bytes for shape {shape} of {dtype}")
    array = np.frombuffer(data, dtype, offset=offset).reshape(shape, order="F" if fortran else "C")
    return np.array(array, dtype.newbyteorder("="), order="C")


def _header(name: str, stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """A member's shape, whether its order is Fortran's, and its dtype."""
    version = np.lib.format.read_magic(stream)
    try:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
    except MemoryError as error:  # of Python's parser: numpy reads the header as an expression
        raise ValueError(f"{name!r} has a header that nests too deeply") from error
    raise ValueError(f"{name!r} has array format {version}")


def _joined(members: Mapping[str, Array]) -> dict[str, Array]:
    """Put the parts of tensors that take two members, or a view, together again."""
    arrays: dict[str, Array] = {}
    for name, member in members.items():
        key, array = name, member
        if name.endswith(_ENDS):
            if name.removesuffix(_ENDS) + _BYTES not in members:
                raise ValueError(f"{name!r} are the ends of strings that are not there")
            continue
        if name.endswith(_BYTES):
            key = name.removesuffix(_BYTES)
            array = _strings(key, member, members.get(key + _ENDS))
        elif name.endswith(_BFLOAT16):
            key, array = name.removesuffix(_BFLOAT16), _bfloat16(member)
        elif member.dtype.kind in "SU":
            array = _from_numpy_strings(member)
        if key in arrays:
            raise ValueError(f"two arrays have the key {key!r}")
        arrays[key] = array
    return arrays


def _bfloat16(bits: Array) -> Array:
    if bits.dtype != np.uint16:
        raise ValueError(f"bfloat16 is kept as uint16, and found as {bits.dtype}")
    return bits.view(ml_dtypes.bfloat16)


def _strings(key: str, data: Array, ends: Array | None) -> Array:
    if ends is None or ends.dtype != np.int64 or data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"the strings of {key!r} lack their ends, or have wrong dtypes")
    stops = ends.reshape(-1)
    starts = np.concatenate([np.zeros(1, np.int64), stops[:-1]]) if stops.size else stops
    if np.any(stops < starts) or (stops[-1] if stops.size else 0) != data.size:
        raise ValueError(f"the ends of the strings of {key!r} do not fit their bytes")
    text = data.tobytes()
    strings = np.empty(stops.size, dtype=object)
    strings[:] = [text[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    return strings.reshape(ends.shape)


def _from_numpy_strings(array: Array) -> Array:
    strings = np.empty(array.size, dtype=object)
    strings[:] = [value.encode() if isinstance(value, str) else bytes(value) for value in array.reshape(-1)]
    return strings.reshape(array.shape)
