"""What of the compiled models' way to a GPU can be told on a machine without one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from server.backends import aot_build
from tests.conftest import ROOT

_SPEC = importlib.util.find_spec("torch")
_LIBRARIES = Path(_SPEC.origin or "").parent / "lib" if _SPEC else Path("nowhere")


@pytest.mark.slow
def test_float32_is_float32_on_a_gpu() -> None:
    """Libtorch would compute convolutions with 10 bits of each number (TF32); using a GPU ends that for the process."""
    if not (_LIBRARIES / "libtorch_cuda.so").exists():
        pytest.skip("this torch has no CUDA")
    program = """
import pathlib, sys, torch
from server.backends.aot_abi import Torch
flags = lambda: (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
torch.backends.cuda.matmul.allow_tf32 = True
before = flags()
one = Torch(pathlib.Path(sys.argv[1]))
one.use("cpu")
assert flags() == before == (True, True), before
one.use("cuda")
assert flags() == (False, False), flags()
"""
    subprocess.run([sys.executable, "-c", program, str(_LIBRARIES)], cwd=ROOT, check=True, timeout=200)


def test_libtorch_s_part_for_gpus_stays() -> None:
    """It is loaded before any compiled model is, and by libtorch's own handle, so that no model takes it along."""
    if not (_LIBRARIES / "libtorch_cuda.so").exists():
        pytest.skip("this torch has no CUDA")
    program = """
import pathlib, sys
from server.backends.aot_abi import Torch
maps = lambda: "libtorch_cuda.so" in pathlib.Path("/proc/self/maps").read_text()
one = Torch(pathlib.Path(sys.argv[1]))
one.use("cpu")
assert not maps()
one.use("cuda")
assert maps() and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(_LIBRARIES)], cwd=ROOT, check=True, timeout=200)


@pytest.mark.slow
def test_every_option_is_one_that_torch_knows() -> None:
    """Unknown ones are left out, for older versions; of the one that is pinned none is."""
    import torch  # noqa: PLC0415 - optional

    from server.lowering import compile as compiling  # noqa: PLC0415 - optional

    known = set(torch._inductor.list_options())
    assert set(compiling._OPTIONS) <= known


def test_the_compiler_is_one_program_with_our_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named as the compiler is, given what the variable names, and finding packages where the server finds them."""
    monkeypatch.setenv("CXX", "env -u NOTHING g++")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = aot_build._environment("cpu", tmp_path, tmp_path / "tmp", tmp_path / "toolchain")
    assert found["PYTHONPATH"].split(":") == [str(ROOT), "/somewhere"]
    program = Path(found["CXX"])
    assert program.name == "g++"
    told = subprocess.run([program, "-###", "-x", "c++", "-"], capture_output=True, text=True, check=True).stderr
    assert "-fno-gnu-unique" in told
    assert "g++" in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
