"""What rules are given of an ONNX node, and the table of rules by operator. Pure.

A rule says what is known of a node's outputs when that is known of its inputs. Operators without a rule are not
analysed, so each rule added is a claim about an operator of ONNX's standard; see `converter.rows.values`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from converter.rows.dimensions import Number, Unproved, symbol
from converter.rows.values import Value, normal, refuse_rows, same


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its operator, its names and its attributes."""

    proto: onnx.NodeProto
    attributes: dict[str, Any]
    scope: str

    @classmethod
    def of(cls, proto: onnx.NodeProto, scope: str = "") -> "Node":
        """The node of a graph.

        Args:
            proto: As in the file.
            scope: A name that no other graph of the file has.
        """
        return cls(proto, {each.name: helper.get_attribute_value(each) for each in proto.attribute}, scope)

    @property
    def operator(self) -> str:
        """Its name, after its domain where that is not the standard one."""
        domain = "" if self.proto.domain in {"", "ai.onnx"} else f"{self.proto.domain}."
        return domain + self.proto.op_type

    @property
    def outputs(self) -> int:
        """How many outputs it has, unused ones included."""
        return len(self.proto.output)

    def unknown(self, part: object = "") -> Number:
        """A number that the node makes and that is known by its name alone: the same whenever it is asked for."""
        return symbol("\0".join([self.scope, self.proto.output[0], str(part)]))

    def unknown_shape(self, value: Value) -> Value:
        """A tensor without rows, of the same rank as another, whose sizes are not known."""
        return same(None if value.shape is None else [self.unknown(axis) for axis in range(len(value.shape))])

    def integer(self, name: str, default: int) -> int:
        """An attribute."""
        return int(self.attributes.get(name, default))

    def integers(self, name: str) -> list[int] | None:
        """An attribute, or None."""
        return [int(item) for item in self.attributes[name]] if name in self.attributes else None

    def text(self, name: str, default: str) -> str:
        """An attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


Inputs = Sequence[Value | None]
"""None for optional inputs that are left out in the middle; those at the end are missing."""
Rule = Callable[[Node, Inputs], list[Value]]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Enter a rule for operators."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return enter


def given(inputs: Inputs, index: int) -> Value:
    """An input that must be there.

    Raises:
        Unproved: it is not.
    """
    value = optional(inputs, index)
    if value is None:
        raise Unproved(f"its input {index} is missing")
    return value


def optional(inputs: Inputs, index: int) -> Value | None:
    """An input, or None if it is left out."""
    return inputs[index] if index < len(inputs) else None


def present(inputs: Inputs) -> list[Value]:
    """The inputs that are there."""
    return [value for value in inputs if value is not None]


def whole_numbers(value: Value) -> list[int]:
    """Known integers.

    Raises:
        Unproved: they are not known, or depend on rows or sizes.
    """
    refuse_rows(value)
    numbers = [number.value for number in value.numbers]
    if not all(isinstance(number, int) for number in numbers):
        raise Unproved("it takes numbers that the analysis does not know")
    return [int(number) for number in numbers if number is not None]


def axes_of(node: Node, inputs: Inputs, index: int, rank: int) -> list[int] | None:
    """The axes that an attribute or an input names, none of them negative; None if neither is there."""
    axes = node.integers("axes")
    value = optional(inputs, index)
    if axes is None and value is not None:
        axes = whole_numbers(value)
    return None if axes is None else [normal(axis, rank) for axis in axes]
