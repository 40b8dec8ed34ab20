"""`server.arrays`: what goes in comes out, equal content is equal bytes, and hostile files are refused."""

import io
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server.arrays import Array, load_arrays, save_arrays

_DTYPES = ("?", "u1", "i1", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8")
_PLAIN = st.one_of([hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_dims=3)) for dtype in _DTYPES])
_STRINGS = hnp.arrays(np.object_, hnp.array_shapes(min_dims=0, min_side=0, max_dims=3), elements=st.binary(max_size=5))
_KEYS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8).filter(
    lambda key: "#" not in key
)


def _member(data: bytes, name: str = "x.npy") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def _npy(header: str, content: bytes) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(arrays=st.dictionaries(_KEYS, st.one_of(_PLAIN, _STRINGS), max_size=4))
def test_round_trip(tmp_path: Path, arrays: dict[str, Array]) -> None:
    """Every array comes back with its key, dtype, shape and bits."""
    path = tmp_path / "arrays.npz"
    save_arrays(path, arrays)
    loaded = load_arrays(path)
    assert loaded.keys() == arrays.keys()
    for key, array in arrays.items():
        assert loaded[key].dtype == array.dtype
        assert loaded[key].shape == array.shape
        same = (
            array.tolist() == loaded[key].tolist()
            if array.dtype == object
            else array.tobytes() == loaded[key].tobytes()
        )
        assert same


def test_bfloat16_and_odd_layouts(tmp_path: Path) -> None:
    """Bfloat16, transposed and big-endian arrays keep their values."""
    arrays: dict[str, Array] = {
        "bfloat16": np.array([[1.5, -2.0], [0.0, np.inf]], ml_dtypes.bfloat16),
        "scalar": np.array(3.0, ml_dtypes.bfloat16),
        "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "big": np.arange(3, dtype=">i4"),
    }
    save_arrays(tmp_path / "a.npz", arrays)
    loaded = load_arrays(tmp_path / "a.npz")
    assert loaded["bfloat16"].dtype == ml_dtypes.bfloat16
    assert loaded["scalar"].shape == ()
    assert loaded["big"].dtype == np.dtype("<i4")
    for key, array in arrays.items():
        np.testing.assert_array_equal(loaded[key], array)


def test_same_content_is_same_bytes(tmp_path: Path) -> None:
    """Neither the order of the keys nor the time of writing shows in the file."""
    x, y = np.arange(3.0), np.array([b"a", b""], dtype=object)
    save_arrays(tmp_path / "a.npz", {"x": x, "y": y})
    save_arrays(tmp_path / "b.npz", {"y": y, "x": x})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_reads_what_numpy_writes(tmp_path: Path) -> None:
    """Files from numpy's savez and savez_compressed load, string arrays as bytes."""
    np.savez_compressed(tmp_path / "a.npz", n=np.arange(4), u=np.array([["é", "b"]]), s=np.array(b"raw"))
    loaded = load_arrays(tmp_path / "a.npz")
    assert loaded["n"].tolist() == [0, 1, 2, 3]
    assert loaded["u"].tolist() == [["é".encode(), b"b"]]
    assert loaded["s"].tolist() == b"raw"


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("x#bytes", np.zeros(1)),
        ("a\0b", np.zeros(1)),
        ("x", np.array([1, "two"], dtype=object)),
        ("x", np.array(["2020-01-01"], dtype="datetime64[D]")),
    ],
)
def test_refuses_to_write_what_it_cannot_hold(tmp_path: Path, key: str, array: Array) -> None:
    """A key or dtype that would not come back is refused when written."""
    with pytest.raises(ValueError, match="array"):
        save_arrays(tmp_path / "a.npz", {key: array})


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, x=np.array([{"code": 1}], dtype=object))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip file",
        _member(b""),
        _member(b"\x93NUMPY\x01\x00"),
        _member(b"text", "readme.txt"),
        _pickled(),
        _member(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", b"\0" * 8)),
        _member(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", b"\0" * 8)),
        _member(_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\0" * 8)),
        _member(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -2)}", b"\0" * 8)),
        _member(_npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", b"\0" * 8)),
        _member(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", b"\0" * 8), "x#bfloat16.npy"),
        _member(_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (8,)}", b"\0" * 8), "x#bytes.npy"),
        _member(_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", b"\0" * 8), "x#ends.npy"),
    ],
)
def test_damaged_and_hostile_files(tmp_path: Path, content: bytes) -> None:
    """Whatever is not a file of plain arrays is a ValueError, and nothing is allocated on its word."""
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz is not a file of arrays"):
        load_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("ends", [[3, 2], [-1, 2], [1, 3], [1, 1]])
def test_string_ends_must_fit(tmp_path: Path, ends: list[int]) -> None:
    """Offsets that run backwards, below zero, beyond or short of the bytes are refused."""
    parts: dict[str, Any] = {"x#bytes": np.frombuffer(b"ab", np.uint8), "x#ends": np.array(ends, np.int64)}
    np.savez(tmp_path / "a.npz", **parts)
    with pytest.raises(ValueError, match="do not fit"):
        load_arrays(tmp_path / "a.npz")


def test_compressed_bombs_are_not_expanded(tmp_path: Path) -> None:
    """A file whose content would exceed the limit is refused by its declared size."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1 << 20))
    with pytest.raises(ValueError, match="are allowed"):
        load_arrays(tmp_path / "a.npz", max_total_bytes=1 << 20)


def test_no_flipped_byte_changes_an_array(tmp_path: Path) -> None:
    """A damaged byte never changes an array: it gives a ValueError, or at worst hides an entry of the archive."""
    save_arrays(tmp_path / "a.npz", {"x": np.arange(4), "s": np.array([b"one", b"two"], dtype=object)})
    good, content = load_arrays(tmp_path / "a.npz"), (tmp_path / "a.npz").read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            loaded: dict[str, Any] = load_arrays(tmp_path / "a.npz")
        except ValueError:
            continue
        assert all(good[key].tolist() == array.tolist() for key, array in loaded.items())
