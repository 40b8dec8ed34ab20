"""What a lowered graph is: a module that is flat Python code, and what is known about it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx, nn

from server.lowering.graph import Dims
from server.lowering.parameters import Origin


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the module.

    Attributes:
        name: Its name in the ONNX graph.
        dtype: ONNX's number of the element type.
        shape: A size, a name (equal names, equal sizes) or None for each axis; None where the rank is unknown.
    """

    name: str
    dtype: int
    shape: Dims | None


@dataclass(slots=True)
class Facts:
    """What the lowering knows of a module."""

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    origins: dict[str, Origin] = field(default_factory=dict)
    suppliers: Counter[tuple[str, str]] = field(default_factory=Counter)


class LoweredModule(fx.GraphModule):
    """A model as a PyTorch module.

    `module(*inputs)` takes tensors in the order of `inputs` and returns a tuple of tensors in the order of `outputs`.
    Its code (`module.code`) is one function without branches or loops over tensors, which torch.compile and
    torch.export take as one graph. It is in evaluation mode when it is made.
    """

    def __init__(self) -> None:
        super().__init__(nn.Module(), fx.Graph(), class_name=type(self).__name__)
        self.meta["segue"] = Facts()

    @property
    def facts(self) -> Facts:
        """What the lowering knows of this module; copies of the module share it."""
        facts: Facts = self.meta["segue"]
        return facts

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs in order."""
        return self.facts.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs in order."""
        return self.facts.outputs

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Key in the state_dict -> the initializer and the TensorFlow variable that it comes from."""
        return self.facts.origins

    @property
    def suppliers(self) -> Mapping[tuple[str, str], int]:
        """(operator, "segue" or "onnx2torch") -> how many of its nodes that one's code computes."""
        return self.facts.suppliers

    def trainable_elements(self) -> int:
        """How many numbers training changes; parameters that are used in several places count once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
