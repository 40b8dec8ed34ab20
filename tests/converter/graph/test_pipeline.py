"""Tests of `converter.graph.pipeline`: what is checked around every rewrite."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.graph.edit import Rewrite, Variables, nodes_of
from converter.graph.facts import Facts
from converter.graph.pipeline import REWRITES, rewrite
from tests.converter.conftest import Exporter
from tests.converter.graph.conftest import Networks
from tests.converter.graph.simplifying import operators, rewritten, variables_of


def _rename_output(model: ir.Model) -> None:
    model.graph.outputs[0].name = "another"


def _lose_variable(model: ir.Model) -> None:
    for node in nodes_of(model, "MatMul"):
        weight = node.inputs[1]
        assert weight is not None
        assert weight.name is not None
        del model.graph.initializers[weight.name]
        weight.name = "anonymous"
        model.graph.register_initializer(weight)


def _shrink_variable(model: ir.Model) -> None:
    for node in nodes_of(model, "MatMul"):
        assert node.inputs[1] is not None
        node.inputs[1].const_value = ir.tensor(np.ones((3, 1), np.float32))


def _break_grammar(model: ir.Model) -> None:
    for node in nodes_of(model, "MatMul"):
        node.op_type = "MatMal"


def _stumble(model: ir.Model) -> None:
    raise ValueError(f"{len(model.graph)} nodes are too many")


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (_rename_output, "inputs or outputs"),
        (_lose_variable, "holds the variable"),
        (_shrink_variable, "is another"),
        (_break_grammar, "MatMal"),
        (_stumble, "too many"),
    ],
)
def test_a_faulty_rewrite_is_undone(export: Exporter, fault: Callable[[ir.Model], None], complaint: str) -> None:
    """Whatever a rewrite does wrong, the graph is as it would be without it, and the reason is said."""

    def apply(model: ir.Model, facts: Facts, variables: Variables) -> int:  # noqa: ARG001 - a rewrite's form
        fault(model)
        return 1

    linear = export("linear")
    model, variables = ir.load(linear.signatures[0].onnx), variables_of(linear)
    result = rewrite(model, variables, rewrites=[*REWRITES, Rewrite("faulty", "", apply)])
    expected = rewrite(model, variables)
    assert complaint in result.refused["faulty"]
    assert "faulty" not in result.applied
    assert ir.to_proto(result.model) == ir.to_proto(expected.model)


def test_rewrites_can_be_left_out(export: Exporter) -> None:
    """What is left out does not apply, and the others do."""
    gelu = export("gelu")
    result = rewrite(ir.load(gelu.signatures[0].onnx), variables_of(gelu), without=["gelu"])
    assert result.applied == {"layer-norm": 1}


def test_rewriting_twice_changes_nothing(export: Exporter, tmp_path: Path) -> None:
    """The first time goes as far as it can."""
    first = rewritten(export("gru.keras"), tmp_path)
    again = rewrite(first.model, variables_of(export("gru.keras")))
    assert again.applied == {}
    assert operators(again.model) == operators(first.model)


def test_names_are_unique() -> None:
    """Reports and options tell rewrites apart by name."""
    assert len({one.name for one in REWRITES}) == len(REWRITES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in REWRITES if one.name != "positions"])
def test_every_rewrite_saves_nodes(network: Networks, name: str) -> None:
    """Keras's transformer has more nodes without any of them; only `positions` saves work in place of nodes."""
    export = network("transformer.keras")
    model, variables = ir.load(export.signatures[0].onnx), variables_of(export)
    everything = rewrite(model, variables)
    assert len(rewrite(model, variables, without=[name]).model.graph) > len(everything.model.graph)
