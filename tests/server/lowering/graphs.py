"""Small graphs in ONNX's own text form, and what must hold for all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from server.lowering import LoweredModule, Variable, lower

Array = np.ndarray[Any, Any]


def model(text: str, **constants: Array) -> onnx.ModelProto:
    """A model of operator set 18 from a graph as text, with some of the values that it uses as initializers."""
    proto = parser.parse_model('<ir_version: 9, opset_import: ["" : 18]>\n' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return proto


def whole(values: int | Sequence[int] | Sequence[Sequence[int]]) -> Array:
    """Whole numbers as shapes and positions are."""
    return np.array(values, np.int64)


def real(values: float | Sequence[float]) -> Array:
    """Single-precision numbers."""
    return np.array(values, np.float32)


def numbers(*shape: int, seed: int = 0) -> Array:
    """Random numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(module: Callable[..., Any], *inputs: Array) -> list[Array]:
    """What a module answers."""
    with torch.no_grad():
        return [answer.numpy() for answer in module(*map(torch.from_numpy, inputs))]


def require_same(answers: Sequence[Array], wanted: Sequence[Array], tolerance: float = 1e-5) -> None:
    """Assert that outputs agree in number, dtype, shape and value."""
    for got, want in zip(answers, wanted, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def require_lowered(
    proto: onnx.ModelProto, *inputs: Array, variables: Mapping[str, str | Variable] | None = None
) -> LoweredModule:
    """Assert that the lowered module answers what ONNX's reference implementation does."""
    module = lower(proto, variables)
    names = [port.name for port in module.inputs]
    wanted: Any = ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True)))
    require_same(run(module, *inputs), wanted)
    return module


def require_one_graph(
    module: LoweredModule, first: Sequence[Array], *others: Sequence[Array], dynamic: Sequence[Mapping[int, Any]]
) -> None:
    """Assert that torch.export takes the module with dynamic sizes, and torch.compile in one graph for all sizes.

    Args:
        module: The module.
        first: Inputs to trace with.
        others: Inputs of other sizes.
        dynamic: For each input its dynamic axes, as torch.export takes them.
    """
    cases = [first, *others]
    wanted = [run(module, *case) for case in cases]
    with torch.no_grad():
        exported = torch.export.export(module, tuple(map(torch.from_numpy, first)), dynamic_shapes=tuple(dynamic))
    for case, want in zip(cases, wanted, strict=True):
        require_same(run(exported.module(), *case), want)

    torch.compiler.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Sequence[Any]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for case, want in zip(cases, wanted, strict=True):
        require_same(run(compiled, *case), want)
    assert len(graphs) == 1
