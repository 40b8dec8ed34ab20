"""ONNX Runtime keeps to itself."""

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.processes import ROOT


def test_onnx_runtime_does_not_report_its_use(tmp_path: Path) -> None:
    """Loading our backend leaves none of the files in which official builds keep what they report."""
    script = "import server.backends.onnx_runtime as backend; backend.ort.SessionOptions()"
    home = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    home.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-B", "-c", script], cwd=ROOT, env=home, timeout=60, check=True)
    assert list(tmp_path.rglob("*")) == []
