"""A server that shall compile, on a machine without a C++ compiler: it serves, and says what is missing."""

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from server.wire.responses import parse_predict_response
from tests.e2e.processes import ROOT, RunningServer, serving
from tests.packages import write_package
from tests.servers import call

REJECTED = "is not served by torch-cpu: "


def said_by_the_documentation(compiler: str) -> tuple[str, str]:
    """What the table of docs/pytorch.md says of a compiler that is not there: the log's text, and what to do."""
    text = (ROOT / "docs" / "pytorch.md").read_text("utf-8")
    found = re.search(r"^\| (there is no C\+\+ compiler) 'g\+\+' · .* \| (install g\+\+).* \|$", text, re.MULTILINE)
    assert found is not None
    return f"{found[1]} '{compiler}'", found[2]


def logged(server: RunningServer, text: str) -> str:
    """The line of the log that has a text, whether it has been read or not."""
    return next((line for line in server.log.seen if text in line), "") or server.log.wait_for(text)


@pytest.mark.skipif(find_spec("torch") is None, reason="an optional install")
def test_without_a_compiler_onnx_runtime_serves_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request is answered, the metric says "rejected", and the log says what the documentation's table says."""
    monkeypatch.setenv("CXX", "/nowhere/g++")
    write_package(tmp_path / "models" / "affine" / "1")
    options = ("--backends", "onnxruntime,torch", "--device", "cpu", "--cache-folder", str(tmp_path / "cache"))
    with serving(tmp_path / "models", *options) as server, grpc.insecure_channel(server.address) as channel:
        line = logged(server, REJECTED)
        _, outputs = parse_predict_response(call(channel))
        with urlopen(server.metrics, timeout=20) as page:  # noqa: S310 - our own server
            lines = page.read().decode().splitlines()
    np.testing.assert_allclose(outputs["y"], np.full((1, 4), 3, np.float32), rtol=1e-5)  # 2 · 1 + 1
    text, advice = said_by_the_documentation("/nowhere/g++")
    reason = line.partition(REJECTED)[2]
    assert reason.startswith(text)
    assert advice in reason
    assert "ONNX Runtime goes on serving" in reason
    states = [one for one in lines if one.startswith("segue_candidate_state{") and one.endswith(" 1.0")]
    (torch,) = (one for one in states if 'backend="torch-cpu"' in one)
    assert 'state="rejected"' in torch
    (runtime,) = (one for one in states if 'backend="onnxruntime-cpu"' in one)
    assert 'state="eligible"' in runtime or 'state="calibrating"' in runtime  # one request is not three runs
