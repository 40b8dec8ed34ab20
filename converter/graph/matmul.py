"""Matrix products on tensors as they are, instead of on matrices that were flattened for them.

TensorFlow's Tensordot flattens what comes before the last dimension, multiplies matrices, and restores the shape;
Einsum merges batch and heads likewise. ONNX's MatMul, as numpy's, does without.
"""

from typing import Final

import onnx_ir as ir

from converter.graph.edit import Rewrite, Variables, bypass, insert, nodes_of, producer
from converter.graph.facts import Facts
from converter.graph.reshapes import RESHAPING, reshape
from converter.graph.sizes import Shape, product
from converter.graph.unused import remove_unused


def _apply(model: ir.Model, facts: Facts, variables: Variables) -> int:
    done = 0
    for node in nodes_of(model, "MatMul"):
        done += _with_matrix(model, facts, node) or _batched(model, facts, node)
    remove_unused(model, variables)
    return done


def _with_matrix(model: ir.Model, facts: Facts, node: ir.Node) -> bool:
    """Reshape(x, [-1, k]) @ w, restored to [..., n], is x @ w."""
    flat, matrix = node.inputs
    whole = _before(facts, flat)
    if flat is None or matrix is None or whole is None or facts.rank(matrix) != 2 or facts.rank(flat) != 2:
        return False
    shape = facts.shapes[whole]
    if len(shape) < 3 or shape[-1] != facts.shapes[flat][-1]:
        return False
    return _lifted(model, facts, node, [whole, matrix], (*shape[:-1], facts.shapes[matrix][1]))


def _batched(model: ir.Model, facts: Facts, node: ir.Node) -> bool:
    """Reshape(a, [-1, m, k]) @ Reshape(b, [-1, k, n]), restored to [..., m, n], is a @ b."""
    wholes = [_before(facts, value) for value in node.inputs]
    if any(whole is None for whole in wholes) or any(facts.rank(value) != 3 for value in node.inputs):
        return False
    left, right = wholes
    assert left is not None and right is not None  # noqa: S101, PT018 - seen above
    a, b = facts.shapes[left], facts.shapes[right]
    flats = [facts.shapes[value] for value in node.inputs if value is not None]
    if len(a) < 4 or a[:-2] != b[:-2] or any(f[1:] != w[-2:] for f, w in zip(flats, (a, b), strict=True)):
        return False
    if any(f[0] != product(a[:-2]) for f in flats):
        return False
    return _lifted(model, facts, node, [left, right], (*a[:-1], b[-1]))


def _before(facts: Facts, value: ir.Value | None) -> ir.Value | None:
    """What was reshaped to a value; of a chain of reshapes the last, for `reshapes` has shortened it."""
    node = producer(value, *RESHAPING)
    source = None if node is None else node.inputs[0]
    return source if source is not None and source in facts.shapes else None


def _lifted(model: ir.Model, facts: Facts, node: ir.Node, inputs: list[ir.Value], shape: Shape) -> bool:
    """Multiply the whole tensors, and give those who read the flat result what they had: its shape."""
    flat = node.outputs[0]
    readers = list(flat.uses())
    # Worth it only if the result is reshaped anyway; those reshapes then cancel.
    if flat.is_graph_output() or not readers or any(use.node.op_type not in RESHAPING for use in readers):
        return False
    lifted = insert(node, "MatMul", inputs, f"{flat.name}/whole")
    restored = reshape(model, node, lifted, shape=shape, wanted=facts.shapes[flat], name=f"{flat.name}/flat")
    return restored is not None and bypass(flat, restored)


REWRITE: Final = Rewrite("matmul", "matrix products without flattening and restoring", _apply)
