"""Tests of the written source: it computes what the module computes, for every operator."""

import builtins
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from benchmarks.operators.cases import Case, installed
from benchmarks.operators.emitted import REWRITTEN, emitted_operators, source_folder
from protos.segue.package_pb2 import Signature
from server.errors import GraphNotLowerable
from server.lowering import LoweredModule, lower
from server.lowering.export.bundle import Bundle
from server.lowering.export.files import model_text, names_of, written_source
from server.lowering.foreign import REVIEWED
from server.lowering.graph import read_graph
from server.lowering.host import HOST
from server.lowering.operators import OPERATORS
from tests.server.lowering.graphs import Array, model, numbers, real, run, whole

_OF_CLASSES = {"__annotations__", "__name__", "__module__", "__qualname__"}
_HEADER = "from __future__ import annotations\nimport math\nimport torch\nfrom torch import nn\n"


def written(proto: onnx.ModelProto, module: LoweredModule) -> tuple[Any, str]:
    """The model that the written source makes, with the weights of the module, and the source."""
    ports = (*module.inputs, *module.outputs)
    source, operators = written_source(module, read_graph(proto), {port.name: port.name for port in ports})
    names = names_of(module, source.buffers)
    text = model_text("model", "test", source, operators, Signature(), names)
    space = types.ModuleType("written")
    space.__file__ = __file__
    sys.modules["written"] = space  # where dataclasses look for what annotations mean
    try:
        exec(compile(text, "model.py", "exec"), vars(space))  # noqa: S102 - it is what is tested
    finally:
        del sys.modules["written"]
    made = space.Model()
    made.load_state_dict(dict(names.tensors))
    return made.eval(), text


def require_written(proto: onnx.ModelProto, *inputs: Array) -> str:
    """Assert that the source computes what the module does; returns the source."""
    module = lower(proto)
    made, text = written(proto, module)
    with torch.no_grad():
        answers = made(*[torch.from_numpy(array) for array in inputs])
    for got, want in zip(answers.values(), run(module, *inputs), strict=True):
        np.testing.assert_array_equal(got.numpy(), want)
    return text


def globals_of(code: types.CodeType) -> Iterator[str]:
    """The global names that code uses, functions inside included."""
    import dis  # noqa: PLC0415 - here alone

    for one in dis.get_instructions(code):
        if one.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
            yield str(one.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from globals_of(constant)


def test_every_operator_can_be_copied() -> None:
    """With all that it uses: no name is left that nothing defines, and none of ours is imported."""
    bundle = Bundle()
    for operator in OPERATORS.values():
        bundle.take(operator.function)
    for function in HOST.values():
        bundle.take(function)
    text = _HEADER + "\n".join(sorted(bundle.imports)) + "\n" + bundle.text()
    assert not [line for line in bundle.imports if "server" in line or "onnx" in line]
    space: dict[str, Any] = {}
    code = compile(text, "operators.py", "exec")
    exec(code, space)  # noqa: S102 - it is what is tested
    missing = set(globals_of(code)) - set(space) - set(vars(builtins)) - _OF_CLASSES
    assert sorted(missing) == []


def test_names_that_two_modules_share_are_told_apart() -> None:
    """A function of the operators on tensors, and one of the same name on shapes."""
    bundle = Bundle()
    both = HOST["Unsqueeze"], OPERATORS["Unsqueeze"].function
    names = [*map(bundle.take, both), bundle.take(HOST["Add"])]
    assert len(set(names)) == 3
    space: dict[str, Any] = {}
    exec(_HEADER + "\n".join(bundle.imports) + "\n" + bundle.text(), space)  # noqa: S102 - it is what is tested
    assert space[names[0]](3, 0) == (3,)
    assert space[names[1]](torch.ones(2), (0,)).shape == (1, 2)
    assert space[names[2]]((1, 2), 3) == (4, 5)


def test_shapes_are_written_as_python() -> None:
    """Arithmetic on sizes reads as such."""
    graph = """g (float[b, t, 6] x) => (float[b, u, 3, 2] y) {
        shape = Shape(x) batch = Gather(shape, zero) time = Slice(shape, one, two) twice = Mul(batch, scale)
        long = Unsqueeze(twice, axes) rest = Concat<axis=0>(long, time, tail) y = Reshape(x, rest) }"""
    constants = {
        "zero": whole(0), "one": whole([1]), "two": whole([2]), "axes": whole([0]), "tail": whole([3, 2]),
        "scale": whole(1),
    }  # fmt: skip
    text = require_written(model(graph, **constants), numbers(2, 5, 6))
    for line in (
        "shape = x.shape",
        "batch = shape[0]",
        "time = shape[1:2]",
        "twice = batch * 1",
        "(*long, *time, 3, 2,)",
    ):
        assert line in text


def test_a_variable_is_used_again_when_nothing_needs_it() -> None:
    """Memory is freed as it is in code that people write, and an input keeps its name."""
    graph = "g (float[n] tanh) => (float[n] y) { a = Tanh(tanh) b = Tanh(a) y = Add(b, tanh) }"
    require_written(model(graph), numbers(3))


def test_names_of_functions_are_not_covered_by_variables() -> None:
    """A value may be called like the operator that computes it."""
    graph = """g (float[n,4] x) => (float[n,4] y) {
        cumulative_sum = CumSum(x, axis) torch = CumSum(cumulative_sum, axis) y = Mul(torch, cumulative_sum) }"""
    require_written(model(graph, axis=whole(1)), numbers(3, 4))


def test_inputs_are_not_covered_by_functions() -> None:
    """Callers give inputs by name, so it is the function that is called otherwise."""
    graph = "g (float[n,4] cumulative_sum) => (float[n,4] y) { y = CumSum(cumulative_sum, axis) }"
    text = require_written(model(graph, axis=whole(1)), numbers(3, 4))
    assert "def forward(self, cumulative_sum: torch.Tensor)" in text


def test_control_flow_is_written_as_classes() -> None:
    """Bodies with weights of their own and with those of the model, and a body in a body."""
    graph = """g (float[n] x, int64 count) => (float[n] y) {
        first = Mul(x, w)
        y = Loop(count, , first) <
            body = step (int64 i, bool c, float[n] v) => (bool more, float[n] u) {
                total = ReduceSum<keepdims=0>(v) positive = Greater(total, zero) more = Identity(c)
                u = If(positive) <
                    then_branch = yes () => (float[n] a) { a = Mul(v, w) },
                    else_branch = no () => (float[n] b) { b = Add(v, z) }
                > }
        > }"""
    text = require_written(
        model(graph, w=numbers(4), z=numbers(4, seed=3), zero=real(0)), numbers(4), np.array(3, np.int64)
    )
    assert text.count("(nn.Module):") == 4
    assert "TIED = {\n" in text


def test_recurrent_layers_are_torchs() -> None:
    """In ONNX's layout."""
    graph = """g (float[t,b,2] x) => (float[t,1,b,3] y, float[1,b,3] h, float[1,b,3] c) {
        y, h, c = LSTM<hidden_size=3>(x, w, r, bias) }"""
    weights = {"w": numbers(1, 12, 2), "r": numbers(1, 12, 3, seed=1), "bias": numbers(1, 24, seed=2)}
    assert "nn.LSTM(2, 3)" in require_written(model(graph, **weights), numbers(5, 2, 2))


INCOMPARABLE = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),  # differ each time
    *("ConcatFromSequence", "SequenceEmpty"),  # have no test in the standard
}


@pytest.mark.slow
def test_every_standard_test_gives_the_same_through_the_source() -> None:
    """What is lowered can be written, and the source computes the same bits."""
    operators = emitted_operators(source_folder()) | REWRITTEN
    seen, elsewhere, different = set(), set(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in installed(operators):
            if case.operator == "(expanded)" or any(isinstance(array, list) for array in case.sets[0][0]):
                elsewhere.add(case.operator)
                continue  # of several operators, or of sequences
            try:
                module = lower(case.model)
                inputs = [torch.from_numpy(np.array(array)) for array in case.sets[0][0]]
                with torch.no_grad():
                    wanted = module(*inputs)
            except (GraphNotLowerable, TypeError, NotImplementedError, RuntimeError):
                elsewhere.add(case.operator)
                continue  # refused, or of types that are compared elsewhere
            seen.add(case.operator)
            if not same(case, module, inputs, wanted):
                different.append(case.name)
    assert not different
    written = ((set(OPERATORS) | set(REVIEWED)) & operators) - (elsewhere - seen)
    assert written - INCOMPARABLE <= seen, "each operator that is lowered has a test that goes through the source"


def same(case: Case, module: LoweredModule, inputs: Sequence[torch.Tensor], wanted: Sequence[Any]) -> bool:
    """Whether the source of a module computes the same bits."""
    made, _ = written(case.model, module)
    with torch.no_grad():
        answers = list(made(*inputs).values())
    return len(answers) == len(wanted) and all(
        isinstance(want, tuple) or (got.dtype == want.dtype and torch.equal(got.nan_to_num(7), want.nan_to_num(7)))
        for got, want in zip(answers, wanted, strict=True)
    )
