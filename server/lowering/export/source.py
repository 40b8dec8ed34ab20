"""A lowered module as Python source: a class that builds the same layers and runs the same calls."""

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx, nn

from server.errors import GraphNotLowerable
from server.lowering.export.bundle import Bundle, literal
from server.lowering.export.expressions import WRITERS, OnHost, number, supplied
from server.lowering.graph import Graph, Type
from server.lowering.module import LoweredModule
from server.lowering.recurrent import Series
from server.lowering.walk import OPERATOR, VALUE

# Words of a value's name that say nothing to a reader.
_NOISE: Final = re.compile(r"(Stateful)?PartitionedCall(_\d+)?|ReadVariableOp(_\d+)?|inference|_?\d+|")
_LITERAL_ELEMENTS: Final = 16  # a longer constant is a buffer, beside the weights
_WIDTH: Final = 116
_RESERVED: Final = frozenset({
    "self", "torch", "nn", "functional", "math", "operator", "np", "scan", "while_loop", "Any", "Final",
})  # fmt: skip


@dataclass(slots=True)
class Source:
    """The classes of a module and of the bodies inside it.

    Attributes:
        graph: What was lowered, for the types of its values.
        bundle: Collects the operators.
        classes: Their texts, bodies before what contains them.
        bodies: How many bodies there are.
        reserved: What no variable may be called: the operators' names, once they are known.
        buffers: Constants that are written to the weights' file although they are no part of the state_dict.
    """

    graph: Graph
    bundle: Bundle = field(default_factory=Bundle)
    classes: list[str] = field(default_factory=list)
    reserved: frozenset[str] = frozenset()
    bodies: int = 0
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)

    def write(self, module: LoweredModule, name: str, ports: Mapping[str, str] | None, prefix: str = "") -> str:
        """Write the class of a module.

        Args:
            module: The module.
            name: What the class is called.
            ports: For the whole model, the alias of each input and output by its name in the graph; for a body None.
            prefix: Where the module is in the whole.

        Returns:
            What the class is called.
        """
        lines = _Class(self, module, prefix, ports).lines()
        documented = "The model." if ports is not None else "A part of the model that runs any number of times."
        head = [f"class {name}(nn.Module):", f'    """{documented}"""', ""]
        self.classes.append("\n".join([*head, *(f"    {line}" if line else "" for line in lines)]) + "\n")
        return name


@dataclass(slots=True)
class _Class:
    source: Source
    module: LoweredModule
    prefix: str
    ports: Mapping[str, str] | None
    names: dict[fx.Node, str] = field(default_factory=dict)
    holders: dict[str, fx.Node] = field(default_factory=dict)  # variable -> whose value it has now
    last: dict[fx.Node, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        nodes = list(self.module.graph.nodes)
        for place, node in enumerate(nodes):
            for used in node.all_input_nodes:
                self.last[used] = place
        made = self._constructor()
        body = self._forward(nodes)
        return [*made, "", *body]

    # What it is made of.

    def _constructor(self) -> list[str]:
        lines = ["def __init__(self) -> None:", "    super().__init__()"]
        read = {str(node.target) for node in self.module.graph.nodes if node.op in {"get_attr", "call_module"}}
        supplied_modules = {
            str(node.target) for node in self.module.graph.nodes if node.op == "call_module" and OPERATOR in node.meta
        }
        for path in sorted(read - supplied_modules, key=_natural):
            made = self._made(path)
            kept = f"{self.prefix}{path}" in self.source.buffers
            lines.append(f"    put(self, {path!r}, {made}{', persistent=True' if kept else ''})")
        return lines

    def _made(self, path: str) -> str:
        holder, _, leaf = path.rpartition(".")
        what = getattr(self.module.get_submodule(holder), leaf)
        if isinstance(what, LoweredModule):
            self.source.bodies += 1
            kind = f"Body{self.source.bodies}"
            return f"{self.source.write(what, kind, None, f'{self.prefix}{path}.')}()"
        if isinstance(what, Series):
            kind = self.source.bundle.take(type(what))
            options = f"backwards={what.backwards}, batch_first={what.batch_first}"
            return f"{kind}(nn.{type(what.core).__name__}({what.core.extra_repr()}), {options})"
        if isinstance(what, nn.Module):
            return self._layer(what)
        if isinstance(what, nn.Parameter):
            trained = "" if what.requires_grad else ", requires_grad=False"
            return f"nn.Parameter(torch.empty({tuple(what.shape)}{_dtype(what)}){trained})"
        return self._constant(path, what)

    def _layer(self, layer: nn.Module) -> str:
        described = layer.extra_repr()
        if isinstance(layer, nn.LayerNorm):
            described = f"{layer.normalized_shape}, eps={layer.eps}, bias={layer.bias is not None}"
        text = f"nn.{type(layer).__name__}({described})"
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dtype is not torch.float32:
            text = f"{text}.to({weight.dtype})"
        return text

    def _constant(self, path: str, tensor: torch.Tensor) -> str:
        if tensor.numel() == 0:
            return f"torch.empty({tuple(tensor.shape)}{_dtype(tensor)})"
        if tensor.numel() <= _LITERAL_ELEMENTS and path not in self.module.state_dict():
            values = literal(_tuple(tensor.tolist()))
            return f"torch.tensor({values}, dtype={tensor.dtype})"
        self.source.buffers[f"{self.prefix}{path}"] = tensor
        return f"torch.empty({tuple(tensor.shape)}{_dtype(tensor)})"

    # What it computes.

    def _forward(self, nodes: list[fx.Node]) -> list[str]:
        inputs = [node for node in nodes if node.op == "placeholder"]
        taken: list[str] = []
        for place, node in enumerate(inputs):
            alias = self._alias(self.module.inputs[place].name) if self.ports is not None else None
            taken.append(self._named(node, alias or "", -1))
        given = "".join(f", {name}: torch.Tensor" for name in taken)
        result = "dict[str, torch.Tensor]" if self.ports is not None else "tuple[Any, ...]"
        lines = [f"def forward(self{given}) -> {result}:"]
        scope = ""
        for place, node in enumerate(nodes):
            if node.op in {"placeholder", "output"}:
                continue
            if (own := _scope(node)) and own != scope:
                scope = own
                lines.extend([*([""] if len(lines) > 1 else []), f"    # {scope}"])
            lines.extend(self._statement(node, place))
        lines.append(f"    return {self._returned(nodes[-1])}")
        return lines

    def _statement(self, node: fx.Node, place: int) -> list[str]:
        if node.op == "get_attr":
            self.names[node] = f"self.{node.target}"
            return []
        text = self._expression(node)
        if text.isidentifier():  # another name for a value
            self.names[node] = text
            holder = self.holders.get(text)
            if holder is not None:
                self.last[holder] = max(self.last.get(holder, 0), self.last.get(node, 0))
            return []
        return _wrapped(self._named(node, "", place), text)

    def _expression(self, node: fx.Node) -> str:
        operator = node.meta.get(OPERATOR)
        written = [self._argument(one) for one in node.args]
        if node.op == "call_module":
            if operator is None:
                return f"self.{node.target}({', '.join(written)})"
            text = supplied(operator, written)
            if text is None:
                raise GraphNotLowerable(operator.operator, operator.name, "it has no form as source")
            return text
        if operator is not None:
            text = OnHost(operator, written, node.args, self._type).expression()
            if text is not None:
                return text
        function: Any = node.target
        writer = WRITERS.get(function)
        text = None if writer is None else writer(written, node.args, node.kwargs)
        if text is not None:
            return text
        name = self._function(function)
        keywords = [f"{key}={self._argument(value)}" for key, value in node.kwargs.items()]
        return f"{name}({', '.join([*written, *keywords])})"

    def _function(self, function: Any) -> str:
        if str(getattr(function, "__module__", "")).startswith("server."):
            return self.source.bundle.take(function)
        return f"torch.{function.__name__}"

    def _type(self, name: str) -> Type:
        return self.source.graph.type_of(name)

    def _argument(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self.names[value]
        if isinstance(value, tuple | list):
            inner = ", ".join(self._argument(one) for one in value)
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        return number(value)

    def _named(self, node: fx.Node, alias: str, place: int) -> str:
        """A name for a value; one whose value nothing needs any more is used again."""
        base = alias or _short(str(node.meta.get(VALUE, node.name)))
        if node.op == "call_module" and OPERATOR not in node.meta:
            base = identifier(str(node.target).rpartition(".")[2])
        tried, count = base, 0
        while not self._is_free(tried, place):
            count += 1
            tried = f"{base}_{count}"
        self.holders[tried] = node
        self.names[node] = tried
        return tried

    def _is_free(self, name: str, place: int) -> bool:
        holder = self.holders.get(name)
        if name in _RESERVED or keyword.iskeyword(name) or name in self.source.reserved:
            return False
        return holder is None or (holder.op != "placeholder" and self.last.get(holder, -1) <= place)

    def _alias(self, name: str) -> str:
        return identifier((self.ports or {}).get(name, name))

    def _returned(self, output: fx.Node) -> str:
        values = [self._argument(one) for one in output.args[0]]  # type: ignore[union-attr] # a tuple, as it was made
        if self.ports is None:
            return f"({', '.join(values)},)"
        names = [self.ports.get(port.name, port.name) for port in self.module.outputs]
        return "{" + ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True)) + "}"


def identifier(name: str) -> str:
    """An alias as a parameter of forward."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_0123456789") or "x"
    return f"{text}_" if keyword.iskeyword(text) or text in _RESERVED else text


def _words(name: str) -> list[str]:
    parts = [
        re.sub(r"\W", "", re.sub(r"__\d+$", "", part.partition(":")[0]).replace(".", "_")) for part in name.split("/")
    ]
    return [part for part in parts if part and not _NOISE.fullmatch(part)]


def _short(name: str) -> str:
    """The end of a value's name, in Python's style."""
    words = _words(name)[-2:]
    text = re.sub(r"_+", "_", "_".join(words).lower()).strip("_").lstrip("0123456789_")
    return text or "value"


def _scope(node: fx.Node) -> str:
    """The part of the model that a value belongs to."""
    value = str(node.meta.get(VALUE, ""))
    words = [re.sub(r"_+", "_", word).strip("_") for word in _words(value)[:-1]]
    return "/".join(words[:6]) if "/" in value else ""


def _wrapped(name: str, text: str) -> list[str]:
    """A statement, broken where it is too long to read."""
    line = f"    {name} = {text}"
    head, opened, rest = text.partition("(")
    if len(line) <= _WIDTH or not opened or not rest.endswith(")"):
        return [line]
    return [f"    {name} = {head}(", f"        {rest[:-1]}", "    )"]


def _dtype(tensor: torch.Tensor) -> str:
    return "" if tensor.dtype is torch.float32 else f", dtype={tensor.dtype}"


def _tuple(value: Any) -> Any:
    return tuple(_tuple(one) for one in value) if isinstance(value, list) else value


def _natural(path: str) -> list[tuple[int, str]]:
    """Layers by their numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
