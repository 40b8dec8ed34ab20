"""Tests of `benchmarks.gpu.pack`: what is carried to a machine without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import pack
from tests.conftest import ROOT


def test_what_is_packed_is_small_and_is_what_is_imported(tmp_path: Path) -> None:
    """One command makes the folder; before all else on the path, it supplies its packages; git leaves it alone."""
    out = tmp_path / "gpu-pack"
    subprocess.run([sys.executable, "-m", "benchmarks.gpu.pack", str(out)], cwd=ROOT, check=True, capture_output=True)
    assert pack.size(out) < pack.LARGEST
    assert (out / ".gitignore").read_text() == "*\n"
    program = """
import importlib.util
for name in ("onnx2torch", "prometheus_client", "google.protobuf", "google._upb._message"):
    print(importlib.util.find_spec(name).origin)
"""
    environment = os.environ | {"PYTHONPATH": str(out)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    files = done.stdout.split()
    assert len(files) == 4
    assert all(Path(file).is_relative_to(out) for file in files)


def test_a_package_for_one_python_alone_is_refused(tmp_path: Path) -> None:
    """Copied, it would fail on the other machine; the message says how to fetch it."""
    with pytest.raises(pack.CannotPack, match=r"--wheels 3\.12 ml_dtypes==VERSION"):
        pack.copy("ml_dtypes", tmp_path)
    with pytest.raises(pack.CannotPack, match="no-such-package is not installed"):
        pack.copy("no-such-package", tmp_path)
