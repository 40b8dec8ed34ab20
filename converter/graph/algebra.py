"""Sums and products read out of graphs, whatever their order and grouping.

Exporters and optimizers write one formula in many ways: `0.5 * x * (1 + e)` is a tree of products that may be grouped
and ordered at will, with divisions and signs in between. Here such trees are flattened, so that a rewrite states its
formula once.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from converter.graph.edit import producer, scalar

_DEEPEST: Final = 8  # formulas are not deeper; networks are


@dataclass(frozen=True)
class Term:
    """A product: a number times values, each to a whole power."""

    number: float = 1.0
    powers: Counter[ir.Value] = field(default_factory=Counter)

    def times(self, other: "Term") -> "Term":
        """The product of two."""
        powers = Counter(self.powers)
        for value, power in other.powers.items():
            powers[value] += power
        return Term(self.number * other.number, powers)

    def inverse(self) -> "Term":
        """Its reciprocal; the number must not be 0."""
        return Term(1 / self.number, Counter({value: -power for value, power in self.powers.items()}))

    def to_the(self, power: int) -> "Term":
        """A whole power of it."""
        return Term(self.number**power, Counter({value: own * power for value, own in self.powers.items()}))

    def holds(self, powers: dict[ir.Value, int]) -> bool:
        """Whether these are its values and powers."""
        return {value: power for value, power in self.powers.items() if power} == powers


def term_of(value: ir.Value, atoms: Collection[ir.Value] = (), depth: int = _DEEPEST) -> Term:
    """A value as a product. Atoms are not looked into."""
    number = scalar(value)
    if number is not None and value not in atoms:
        return Term(number)
    node = producer(value, "Mul", "Div", "Neg", "Reciprocal", "Pow")
    if value in atoms or node is None or not depth:
        return Term(powers=Counter([value]))
    operands = [term_of(operand, atoms, depth - 1) for operand in node.inputs if operand is not None]
    return _combined(node.op_type, operands) or Term(powers=Counter([value]))


def _combined(operator: str, operands: list[Term]) -> Term | None:
    match operator:
        case "Mul":
            return operands[0].times(operands[1])
        case "Neg":
            return operands[0].times(Term(-1.0))
        case "Reciprocal" if operands[0].number:
            return operands[0].inverse()
        case "Div" if operands[1].number:
            return operands[0].times(operands[1].inverse())
        case "Pow" if not operands[1].powers and operands[1].number in {2.0, 3.0}:
            return operands[0].to_the(int(operands[1].number))
    return None


def terms_of(value: ir.Value, atoms: Collection[ir.Value] = (), depth: int = _DEEPEST) -> list[Term]:
    """A value as a sum of products. Atoms are not looked into."""
    node = producer(value, "Add", "Sub", "Neg")
    if value in atoms or node is None or not depth:
        return [term_of(value, atoms)]
    parts = [terms_of(operand, atoms, depth - 1) for operand in node.inputs if operand is not None]
    negative = [] if node.op_type == "Add" else parts[-1]
    positive = [term for part in parts for term in part if part is not negative]
    return positive + [term.times(Term(-1.0)) for term in negative]


def computed_from(value: ir.Value, *operators: str, depth: int = _DEEPEST) -> Iterator[ir.Value]:
    """What is computed from a value by these operators alone, nearest first; each once."""
    front, seen = [value], {value}
    for _ in range(depth):
        following = []
        for one in front:
            for use in one.uses():
                node = use.node
                output = node.outputs[0]
                if node.op_type in operators and not node.domain and output not in seen:
                    seen.add(output)
                    following.append(output)
                    yield output
        front = following
