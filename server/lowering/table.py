"""The form of an operator's entry, and the tables that entries stand in. No operator itself is here."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from server.lowering.graph import Graph, Node

Function = TypeVar("Function", bound=Callable[..., Any])
# Keyword-only parameters that the walk fills in; every other keyword-only parameter is an attribute of the operator.
PROVIDED = frozenset({"like", "out", "count", "version"})


@dataclass(frozen=True, slots=True)
class Operator:
    """How one operator is computed.

    `function` takes the operator's inputs in ONNX's order (None where an optional one is left out) and its attributes
    by name. It may also ask, by keyword-only parameters, for `like` (a tensor on the device that the module is on),
    `out` (the torch dtype of the first output), `count` (how many outputs are wanted) and `version` (the operator set
    version that introduced the operator's form).

    Attributes:
        name: ONNX's.
        first: Oldest version of the operator that the function is right for.
        last: Newest.
        function: Called when the module runs, or is traced.
        host: Positions of inputs that it takes as Python numbers, or tuples of them.
        many: Whether it returns a tuple with one entry per output.
        why: Why this is not onnx2torch's converter.
        refuse: Says why a node cannot be lowered; None if it can.
    """

    name: str
    first: int
    last: int
    function: Callable[..., Any]
    host: frozenset[int]
    many: bool
    why: str
    refuse: Callable[[Node, Graph], str | None] | None
    parameters: Mapping[str, inspect.Parameter]

    @property
    def attributes(self) -> frozenset[str]:
        """Attributes that the function takes."""
        return frozenset(self.parameters) - PROVIDED


@dataclass(slots=True)
class Table:
    """Operators by name. An operator has one entry."""

    entries: dict[str, Operator] = field(default_factory=dict)

    def add(
        self,
        *names: str,
        versions: tuple[int, int],
        why: str,
        host: Iterable[int] = (),
        many: bool = False,
        refuse: Callable[[Node, Graph], str | None] | None = None,
    ) -> Callable[[Function], Function]:
        """Enter the decorated function for some operators; see `Operator` for the arguments."""

        def enter(function: Function) -> Function:
            parameters = dict(inspect.signature(function).parameters)
            for provided in PROVIDED & set(parameters):
                if parameters[provided].kind is not inspect.Parameter.KEYWORD_ONLY:
                    msg = f"{names[0]}: {provided} is filled in by the walk, so it must be keyword-only"
                    raise ValueError(msg)
            for name in names:
                if name in self.entries:
                    msg = f"{name} is in the table already"
                    raise ValueError(msg)
                self.entries[name] = Operator(name, *versions, function, frozenset(host), many, why, refuse, parameters)
            return function

        return enter

    def __iter__(self) -> Iterator[Operator]:
        return iter(self.entries.values())


def merged(*tables: Table) -> Mapping[str, Operator]:
    """All tables in one.

    Raises:
        ValueError: An operator is in two of them.
    """
    result: dict[str, Operator] = {}
    for table in tables:
        for name, operator in table.entries.items():
            if name in result:
                msg = f"{name} is in two tables"
                raise ValueError(msg)
            result[name] = operator
    return result
