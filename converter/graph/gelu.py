"""Gelu, exact or by tanh, of which TensorFlow exports six or eight operators.

The exact one is x/2 · erfc(-x/√2), where ONNX has erf alone: `0.5·x · (1 - erf(-x/√2))`. ONNX Runtime knows only the
form with `1 + erf(x/√2)` by itself.
"""

import math
from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from converter.graph.algebra import Term, computed_from, term_of, terms_of
from converter.graph.edit import Rewrite, Variables, bypass, nodes_of, producer
from converter.graph.facts import Facts
from converter.graph.opset import may_raise, raise_opset
from converter.graph.unused import remove_unused

OPSET: Final = 20  # from which ONNX has Gelu
_CLOSE: Final = 1e-5  # constants are written in float32, and sometimes with few digits
_CUBIC: Final = 0.044715


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    if not may_raise(model, OPSET):
        return 0
    done = 0
    for node in nodes_of(model, "Erf", "Tanh"):
        x = _argument(node)
        if x is not None and facts.types.get(x) == ir.DataType.FLOAT:
            done += any(_replace(facts, node, x, output) for output in _gated(x, node.outputs[0]))
    if done:
        raise_opset(model, OPSET)
        remove_unused(model, variables)
    return done


def _argument(node: ir.Node) -> ir.Value | None:
    """The x of erf(±x/√2) or of tanh(√(2/π)·(x + 0.044715·x³))."""
    argument = node.inputs[0]
    if argument is None:
        return None
    product = term_of(argument)
    if node.op_type == "Erf":
        return next(iter(product.powers)) if _is(product, math.sqrt(0.5)) else None
    return _cubic(next(iter(product.powers))) if _is(product, math.sqrt(2 / math.pi)) else None


def _is(term: Term, number: float) -> bool:
    """Whether a term is a single value times a number, or its negative."""
    return list(term.powers.values()) == [1] and math.isclose(abs(term.number), number, rel_tol=_CLOSE)


def _cubic(total: ir.Value) -> ir.Value | None:
    """The x of x + 0.044715·x³."""
    addition = producer(total, "Add")
    if addition is None:
        return None
    for x, other in (addition.inputs, reversed(addition.inputs)):
        if x is not None and other is not None:
            cube = term_of(other, (x,))
            if cube.holds({x: 3}) and math.isclose(cube.number, _CUBIC, rel_tol=_CLOSE):
                return x
    return None


def _gated(x: ir.Value, bent: ir.Value) -> Iterator[ir.Value]:
    """Values that are x/2 · (1 + bent); bent may carry the sign that its argument carries."""
    node = bent.producer()
    assert node is not None and node.inputs[0] is not None  # noqa: S101, PT018 - an Erf or Tanh made it
    sign = math.copysign(1.0, term_of(node.inputs[0]).number)
    for total in computed_from(bent, "Neg", "Add", "Sub", depth=2):
        terms = terms_of(total, (bent,))
        ones = [term.number for term in terms if not +term.powers]
        bents = [term.number for term in terms if term.holds({bent: 1})]
        if len(terms) == 2 and ones == [1.0] and bents == [sign]:
            for output in computed_from(total, "Mul", depth=2):
                product = term_of(output, (x, total))
                if product.holds({x: 1, total: 1}) and product.number == 0.5:
                    yield output


def _replace(facts: Facts, node: ir.Node, x: ir.Value, output: ir.Value) -> bool:
    before = output.producer()
    if before is None or facts.shapes.get(x) != facts.shapes.get(output):
        return False
    approximate = "none" if node.op_type == "Erf" else "tanh"
    gelu = ir.node("Gelu", [x], {"approximate": approximate}, name=f"{before.name}/gelu")
    gelu.outputs[0].name = f"{before.name}/gelu:0"
    graph = before.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101 - rewrites look at nodes of graphs
    graph.insert_before(before, gelu)
    return bypass(output, gelu.outputs[0])


REWRITE: Final = Rewrite("gelu", "GELU, exact or by tanh, is one operator", _apply)
