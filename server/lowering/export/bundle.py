"""The source of operators, gathered into one text that stands on its own.

Functions, classes and constants of `server.lowering` are copied as they are written, with all that they use, in an
order in which Python can run them. What they take from other packages becomes an import; what two modules call by one
name is told apart.
"""

import ast
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from server.lowering.host import HOST

_ROOT: Final = "server"
_HOST: Final = "server.lowering.host"
_TABLE: Final = "HOST"
# Constants made of these are written by their values.
_FOREIGN: Final = frozenset({"onnx"})
_REFUSAL: Final = '''class GraphNotLowerable(RuntimeError):
    """An operator was asked for something that has no form in torch."""
'''
# A name of ours: where it is defined, and as what. Entries of the table of operators on shapes are "HOST:NAME".
Key = tuple[str, str]
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True, slots=True)
class _Module:
    """What a module defines and imports, by name."""

    text: str
    defined: Mapping[str, Definition]
    imported: Mapping[str, tuple[str, str]]  # (module, attribute or "")


@dataclass(slots=True)
class Bundle:
    """Definitions to write.

    Attributes:
        names: What each is called in the text.
        imports: The lines above it.
        reserved: What nothing may be called, since it is called from a function with parameters of these names.
    """

    reserved: frozenset[str] = frozenset()
    names: dict[Key, str] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    _texts: dict[Key, str] = field(default_factory=dict)

    def take(self, function: Any) -> str:
        """Take a function or class of ours, with all that it needs.

        Returns:
            What it is called in the text.
        """
        operator = _host_operators().get(id(function))
        key = (_HOST, f"{_TABLE}:{operator}") if operator else (function.__module__, function.__qualname__)
        self._add(key)
        return self.names[key]

    def text(self) -> str:
        """All definitions, each behind those that it needs."""
        return "\n\n".join(self._texts[key] for key in self._texts)

    def _add(self, key: Key) -> None:
        if key in self.names:
            return
        module, name = key
        wanted = f"on_host_{name.partition(':')[2].lower()}" if ":" in name else name
        taken = {*self.names.values(), *self.reserved}
        own = wanted if wanted not in taken else f"{wanted}_of_{module.rpartition('.')[2]}"
        self.names[key] = own
        self._texts[key] = self._written(key)
        self._texts[key] = self._texts.pop(key)  # behind what it has pulled in

    def _written(self, key: Key) -> str:
        module, name = key
        if name == "GraphNotLowerable":
            return _REFUSAL
        known = _read(module)
        if ":" in name:
            value = _table_entry(known, name.partition(":")[2])
            return f"{self.names[key]} = {self._copied(module, value)}\n"
        node = known.defined[name]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            if self._is_foreign(known, node):
                return f"{self.names[key]} = {literal(getattr(importlib.import_module(module), name))}\n"
            assert node.value is not None  # noqa: S101 - constants have values
            return f"{self.names[key]} = {self._copied(module, node.value)}\n"
        return self._copied(module, node) + "\n"

    def _is_foreign(self, known: _Module, node: ast.AST) -> bool:
        used = (one.id for one in ast.walk(node) if isinstance(one, ast.Name))
        return any(known.imported.get(name, ("", ""))[0].partition(".")[0] in _FOREIGN for name in used)

    def _copied(self, module: str, node: ast.AST) -> str:
        """The text of a node, with the names of ours that it uses as they are called here."""
        known = _read(module)
        lines = known.text.splitlines(keepends=True)
        first, last = _extent(node)
        changes: list[tuple[int, int, int, str]] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            column = lines[node.lineno - 1].index(node.name, node.col_offset)
            changes.append((node.lineno, column, len(node.name), self.names[module, node.name]))
        for one in _names_in(node):
            new = self._resolved(module, known, one.id)
            if new is not None and new != one.id:
                changes.append((one.lineno, one.col_offset, len(one.id), new))
        for line, column, length, new in sorted(set(changes), reverse=True):
            before = lines[line - 1].encode()  # columns count bytes
            lines[line - 1] = (before[:column] + new.encode() + before[column + length :]).decode()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            return "".join(lines[first - 1 : last]).rstrip()
        text = known.text if not changes else "".join(lines)
        segment = ast.get_source_segment(known.text, node) if not changes else _segment(text, node, changes)
        return segment or ""

    def _resolved(self, module: str, known: _Module, name: str) -> str | None:
        if name in known.defined:
            self._add((module, name))
            return self.names[module, name]
        if name not in known.imported:
            return None
        source, attribute = known.imported[name]
        if source.partition(".")[0] == _ROOT and attribute:
            self._add((source, attribute))
            return self.names[source, attribute]
        line = f"from {source} import {attribute}" if attribute else f"import {source}"
        alias = attribute or source
        self.imports.add(line if alias == name else f"{line} as {name}")
        return None


def _segment(text: str, node: ast.AST, changes: list[tuple[int, int, int, str]]) -> str:
    """The text of an expression after names in it have changed their lengths."""
    assert isinstance(node, ast.expr)  # noqa: S101 - others are copied by lines
    assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: S101, PT018 - parsed
    grown = sum(len(new) - length for line, _, length, new in set(changes) if line == node.end_lineno)
    lines = text.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno]
    lines[-1] = lines[-1][: node.end_col_offset + grown]
    lines[0] = lines[0][node.col_offset :]
    return "".join(lines)


def _extent(node: ast.AST) -> tuple[int, int]:
    """First and last line; without the decorators of functions, which only enter operators into the table."""
    assert isinstance(node, ast.stmt | ast.expr)  # noqa: S101 - nothing else is copied
    first = node.decorator_list[0].lineno if isinstance(node, ast.ClassDef) and node.decorator_list else node.lineno
    return first, node.end_lineno or node.lineno


def _names_in(node: ast.AST) -> Iterable[ast.Name]:
    skipped: set[int] = set()
    if isinstance(node, ast.FunctionDef):
        skipped = {id(one) for decorator in node.decorator_list for one in ast.walk(decorator)}
    own = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
    stored = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and id(one) not in skipped and one.id not in own | stored:
            yield one


def _table_entry(known: _Module, operator: str) -> ast.expr:
    table = known.defined[_TABLE]
    assert isinstance(table, ast.AnnAssign) and isinstance(table.value, ast.Dict)  # noqa: S101, PT018 - as it is written
    for key, value in zip(table.value.keys, table.value.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == operator:
            return value
    msg = f"{operator} is not in the table of operators on shapes"
    raise KeyError(msg)


@cache
def _host_operators() -> Mapping[int, str]:
    """The operators whose functions have no name of their own."""
    return {id(function): name for name, function in HOST.items() if "<locals>" in function.__qualname__}


@cache
def _read(module: str) -> _Module:
    path = importlib.import_module(module).__file__
    assert path is not None  # noqa: S101 - our modules are files
    text = Path(path).read_text("utf-8")
    defined: dict[str, Definition] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined[node.targets[0].id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined[node.target.id] = node
        elif isinstance(node, ast.Import):
            imported.update({one.asname or one.name: (one.name, "") for one in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.update({one.asname or one.name: (node.module, one.name) for one in node.names})
    return _Module(text, defined, imported)


def literal(value: Any) -> str:
    """A value as Python's source, torch's element types included."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, frozenset):
        return "frozenset({" + ", ".join(literal(one) for one in sorted(value)) + "})"
    if isinstance(value, tuple):
        inner = ", ".join(literal(one) for one in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124 - NaN
        return f'float("{value}")'
    return repr(value)
