"""Which ONNX operators an export can hold: read off tf2onnx's source, which is not imported.

tf2onnx names an operator that it makes by a string: in `make_node`, as a rewriter's replacement, or by giving a node a
new type. A TensorFlow operator that it keeps under its own name is named by the string in `@tf_op`. Strings that are
only compared with, matched against or looked up do not count.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from onnx import defs

OPSET: Final = 18  # the newest that tf2onnx writes
# What our own rewrites of the graph add.
REWRITTEN: Final = frozenset({"Attention", "Gelu", "LayerNormalization"})
# Calls whose strings describe what is looked for, not what is made.
_SEARCHES: Final = frozenset({"OpTypePattern", "find_op", "startswith", "endswith", "get", "find_opset"})
# Named only in late_rewriters/channel_order_rewriters.py, in the list of operators whose inputs it turns around.
NEVER_MADE: Final = frozenset({"ConvInteger", "GlobalLpPool", "LpPool", "MaxRoiPool", "MaxUnpool", "QLinearConv"})


def source_folder() -> Path:
    """Where tf2onnx is installed."""
    spec = importlib.util.find_spec("tf2onnx")
    if spec is None or not spec.submodule_search_locations:
        msg = "tf2onnx is not installed: the list of operators is read off its source"
        raise FileNotFoundError(msg)
    return Path(spec.submodule_search_locations[0])


def emitted_operators(folder: Path) -> frozenset[str]:
    """The operators of ONNX's own domain that tf2onnx's source can make, at operator set 18."""
    standard = {
        schema.name
        for schema in defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.since_version <= OPSET
    }
    named = {name for path in sorted(folder.rglob("*.py")) for name in _named(ast.parse(path.read_text("utf-8")))}
    return frozenset(named & standard) - NEVER_MADE


def _named(tree: ast.AST) -> Iterator[str]:
    """Strings of a module, without those in comparisons, searches, subscripts and keys of tables."""
    for node in _walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Compare):
            continue
        if isinstance(child, ast.Subscript):
            yield from _walk(child.value)
            continue
        if isinstance(child, ast.Call) and _called(child) in _SEARCHES:
            continue
        if isinstance(child, ast.Dict):
            for value in child.values:
                yield from _walk(value)
            continue
        yield from _walk(child)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
