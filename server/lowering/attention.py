"""Attention recognised where an export took it apart: matrix products around a Softmax.

What is found is the same function of queries, keys and values for every input: a softmax over the last axis of
`scale * queries @ keys' + mask`, times values. Anything else between the products leaves them as they are.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from server.lowering.graph import Graph, Node

if TYPE_CHECKING:
    from server.lowering.walk import Walk

# Added to a score, such a number leaves nothing of it in single precision, so that adding and replacing are the same.
_REPLACES: Final = 1e30
_RANKS: Final = frozenset({3, 4})


@dataclass(frozen=True, slots=True)
class _Scores:
    """The product behind a softmax.

    Attributes:
        product: The MatMul.
        turned: Whether it is keys times queries, and turned afterwards.
        scale: What it is multiplied by.
        masks: What is then added to it.
        chosen: (condition, number): where the condition is false, a score was replaced by the number.
    """

    product: Node
    turned: bool
    scale: float
    masks: tuple[str, ...]
    chosen: tuple[str, float] | None


def attention(node: Node, walk: "Walk") -> bool:
    """MatMul of a Softmax with values: scaled_dot_product_attention."""
    graph = walk.graph
    softmax = graph.producer(node.inputs[0])
    if softmax is None or softmax.operator != "Softmax" or graph.uses[node.inputs[0]] != 1:
        return False
    rank = _rank(graph, node.inputs[1])
    axis = softmax.attributes.get("axis", -1 if softmax.version >= 13 else 1)
    if rank not in _RANKS or axis not in {-1, rank - 1} or _rank(graph, node.inputs[0]) != rank:
        return False
    found = _scores(graph, softmax.inputs[0], walk)
    if found is None or any(_rank(graph, name) != rank for name in found.product.inputs):
        return False
    named = (*found.masks, *((found.chosen[0],) if found.chosen else ()))
    if any((_rank(graph, name) or 0) > rank or _rank(graph, name) is None for name in named):
        return False
    left, right = found.product.inputs
    if found.turned:  # (keys @ queries')' = queries @ keys'
        queries, keys = _turned(graph, right, walk), walk.tensor(left)
    else:
        queries, keys = walk.tensor(left), _turned(graph, right, walk)
    values = walk.tensor(node.inputs[1])
    masks = tuple(walk.tensor(name) for name in found.masks)
    chosen = (walk.tensor(found.chosen[0]), found.chosen[1]) if found.chosen else None
    result = walk.call(
        attended, queries, keys, values, name=node.outputs[0], masks=masks, chosen=chosen, scale=found.scale
    )
    walk.bind(node.outputs[0], result)
    return True


def _turned(graph: Graph, name: str, walk: "Walk") -> Any:
    """A value with its last two axes exchanged; two transpositions become one."""
    maker = graph.producer(name)
    rank = _rank(graph, name) or 0
    if maker is not None and maker.operator == "Transpose" and "perm" in maker.attributes:
        order = list(maker.attributes["perm"])
        order[-1], order[-2] = order[-2], order[-1]
        return walk.call(torch.permute, walk.tensor(maker.inputs[0]), tuple(order), name=f"{name}_turned")
    return walk.call(torch.transpose, walk.tensor(name), rank - 2, rank - 1, name=f"{name}_turned")


def _rank(graph: Graph, name: str) -> int | None:
    shape = graph.type_of(name).shape
    return None if shape is None else len(shape)


def _scores(graph: Graph, name: str, walk: "Walk") -> _Scores | None:
    """Walk from what goes into a softmax to the product, over what may lie between."""
    masks: list[str] = []
    chosen: tuple[str, float] | None = None
    scale, turned = 1.0, False
    while (node := graph.producer(name)) is not None:
        if graph.uses[name] != 1:
            return None
        if node.operator == "MatMul":
            return _Scores(node, turned, scale, tuple(masks), chosen)
        if node.operator in {"Mul", "Div"} and (factor := _factor(node, walk)) is not None:
            name, number = factor
            scale *= number
        elif node.operator == "Add" and scale == 1.0 and not turned:
            name, mask = _main(graph, node)
            masks.extend([mask] if mask and _number(walk, mask) is None else [])
        elif node.operator == "Where" and scale == 1.0 and not (turned or masks or chosen):
            number_or_none = _number(walk, node.inputs[2])
            if number_or_none is None or not -math.inf < number_or_none <= -_REPLACES:
                return None
            name, chosen = node.inputs[1], (node.inputs[0], number_or_none)
        elif node.operator == "Transpose" and not turned and _exchanges_last(node):
            name, turned = node.inputs[0], True
        else:
            return None
    return None


def _factor(node: Node, walk: "Walk") -> tuple[str, float] | None:
    """(what is scaled, by which number) of a product or quotient with a constant."""
    one, other = node.inputs
    number = _number(walk, other)
    if number is not None and number != 0.0:
        return one, (1.0 / number if node.operator == "Div" else number)
    number = _number(walk, one)
    return (other, number) if number is not None and node.operator == "Mul" else None


def _number(walk: "Walk", name: str) -> float | None:
    """The one finite number that a constant holds; None for other values, and for what is trained."""
    constant = walk.graph.constant(name)
    if constant is None or any(size != 1 for size in constant.dims) or walk.weights.names(name):
        return None
    number = walk.literal(name)
    while isinstance(number, tuple):
        (number,) = number
    return float(number) if isinstance(number, (int, float)) and math.isfinite(number) else None


def _main(graph: Graph, node: Node) -> tuple[str, str]:
    """(scores, mask) of a sum: the scores are what a product is behind."""
    one, other = node.inputs
    return (one, other) if _leads_to_product(graph, one) else (other, one)


def _leads_to_product(graph: Graph, name: str) -> bool:
    node = graph.producer(name)
    while node is not None and node.operator in {"Mul", "Div", "Add", "Where", "Transpose"}:
        able = [each for each in node.inputs if _leads_to_product(graph, each)]
        return len(able) == 1 and graph.uses[name] == 1
    return node is not None and node.operator == "MatMul" and graph.uses[name] == 1


def _exchanges_last(node: Node) -> bool:
    order = node.attributes.get("perm", ())
    rank = len(order)
    return rank in _RANKS and tuple(order) == (*range(rank - 2), rank - 1, rank - 2)


def attended(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor,
    *, masks: tuple[torch.Tensor, ...], chosen: tuple[torch.Tensor, float] | None, scale: float,
) -> torch.Tensor:  # fmt: skip
    """Attention.

    Args:
        queries: [..., length, size], with three or four axes.
        keys: [..., steps, size].
        values: [..., steps, width].
        masks: What is added to the scores.
        chosen: (condition, number): where the condition is false, the score is the number.
        scale: What the products are multiplied by.

    Returns:
        [..., length, width].
    """
    total = masks[0] if masks else None
    for mask in masks[1:]:
        total = mask if total is None else total + mask
    if chosen is not None:
        condition, number = chosen
        there = torch.zeros((), dtype=queries.dtype, device=queries.device) if total is None else total
        total = torch.where(condition, there, torch.full((), number, dtype=queries.dtype, device=queries.device))
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=total, scale=scale)
