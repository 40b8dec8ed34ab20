"""tf2onnx's optimizer of global pools: it is left out, and that is what layer normalisations are found for."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import version_converter

from converter.graph.pipeline import rewrite
from tests.conftest import ROOT
from tests.converter.graph.simplifying import operators

# TensorFlow is imported in a process of its own. Up to opset 17 axes are attributes, as the optimizer wants them.
_EXPORT = """
import json, sys
from functools import partial
from pathlib import Path
import onnx
from tf2onnx import optimizer
from converter.worker import convert, freeze, load
source, folder = map(Path, sys.argv[1:])
model = load.load_saved_model(source, ["serve"])
(signature,) = load.signatures(model, None)
frozen = freeze.freeze(model, signature, lean_bytes=1 << 30)
ours, theirs = dict(convert._OPTIMIZERS), optimizer._get_optimizers()
onnx.save(convert.convert(frozen, signature, 17), folder / "ours.onnx")
convert._OPTIMIZERS["global_pool_optimizer"] = partial(convert._Frugal, theirs["global_pool_optimizer"])
onnx.save(convert.convert(frozen, signature, 17), folder / "theirs.onnx")
print(json.dumps([list(ours), list(theirs)]))
"""


@pytest.mark.slow
def test_the_global_pool_optimizer_would_hide_layer_normalisations(zoo: Path, tmp_path: Path) -> None:
    """With it the mean of a layer normalisation is a pool, and nothing is found; without it, LayerNormalization is."""
    command = [sys.executable, "-c", _EXPORT, str(zoo / "gelu"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    assert set(theirs) - set(ours) == {"global_pool_optimizer"}
    found = {name: rewrite(_today(onnx.load(tmp_path / f"{name}.onnx")), {}) for name in ("ours", "theirs")}
    assert found["ours"].applied["layer-norm"] == 1
    assert operators(found["ours"].model)["LayerNormalization"] == 1
    assert "layer-norm" not in found["theirs"].applied
    assert operators(found["theirs"].model)["GlobalAveragePool"] > 0


def _today(model: onnx.ModelProto) -> ir.Model:
    """A model in opset 18, which the rewrites read; the axes that were attributes are initializers, as in an export."""
    newer = version_converter.convert_version(model, 18)
    for node in [node for node in newer.graph.node if node.op_type == "Constant"]:
        tensor = newer.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        newer.graph.node.remove(node)
    return ir.from_proto(newer)
