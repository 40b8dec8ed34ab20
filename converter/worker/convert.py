"""From a frozen TensorFlow graph to an ONNX model, by tf2onnx's functions below its command line.

tf2onnx reports success on graphs with operators that it does not know, and writes them into ONNX's own domain. Here
every operator of the result is looked up in ONNX's schemas, and what tf2onnx logged is kept to name the culprits.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import onnx
import tensorflow as tf
from onnx import defs
from tf2onnx import optimizer, tfonnx
from tf2onnx.optimizer import back_to_back_optimizer
from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

from converter.worker.foreign import ConverterGraph, ConverterNode, ConverterOptimizer, GraphDef, NodeDef
from converter.worker.freeze import Frozen
from converter.worker.graphs import subgraphs
from converter.worker.handlers import HANDLERS
from converter.worker.load import quoted
from converter.worker.protocol import FailureKind, WorkerFailure
from converter.worker.signature import Signature

_DOMAINS: Final = ("", "ai.onnx.ml")  # what ONNX Runtime runs without add-ons
_NAMED_NODES: Final = 3  # per operator in a message


class _ScalesKept(TransposeOptimizer):  # type: ignore[misc]  # tf2onnx has no types
    """tf2onnx's, without its multiplying the scale of a batch normalization into the kernel before it.

    Both layers' variables would be lost. Every runtime multiplies them by itself when it loads the graph.
    """

    def _mul_handler(self, transpose: ConverterNode, product: ConverterNode) -> bool:
        scaled = transpose.inputs[0].type == "Conv" and product.input[0] == transpose.output[0]
        if scaled:  # it multiplies only what is the second factor
            self._g.replace_inputs(product, product.input[::-1])
        done = bool(super()._mul_handler(transpose, product))
        if scaled:  # ONNX Runtime does so, too
            self._g.replace_inputs(product, product.input[::-1])
        return done


class _Frugal:
    """One of tf2onnx's optimizers, without the copy of every constant with which each ends: most of its time."""

    def __init__(self, factory: Callable[[], ConverterOptimizer]) -> None:
        self._optimizer = factory()

    @property
    def graph_been_opt(self) -> bool:
        return bool(self._optimizer.graph_been_opt)

    def optimize(self, graph: ConverterGraph, iteration: int) -> ConverterGraph:
        self._optimizer.opt_iteration = iteration
        graph = self._optimizer._optimize(graph)  # noqa: SLF001 - what its public method calls, too
        for node in graph.get_nodes():
            if not node.is_const():
                node.update_proto()
        graph.delete_unused_nodes(graph.outputs)
        return graph


# global_pool_optimizer turns the means inside layer normalisations into pools, after which no runtime recognises them.
# Opset 18 escapes it only because axes became an input there.
_OPTIMIZERS: Final = {
    name: partial(_Frugal, _ScalesKept if factory is TransposeOptimizer else factory)
    for name, factory in optimizer._get_optimizers().items()  # noqa: SLF001 - tf2onnx is pinned, and this is its list
    if name != "global_pool_optimizer"
}


# It would fold batch normalisation into the convolution before it, and so lose both layers' variables. ONNX Runtime
# folds them by itself when it loads the graph.
back_to_back_optimizer._func_map.pop(("Conv", "BatchNormalization"), None)  # noqa: SLF001 - there is no switch for it


class _OptimizerFailed(Exception):
    """One of tf2onnx's optimizers stumbled, and left the graph in pieces."""


class _Log(logging.Handler):
    """What tf2onnx logged about nodes that it could not convert: operators by node name, and its errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.unknown: dict[str, str] = {}
        self.failed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        if "is not supported" in record.msg and len(arguments) == 2:
            self.unknown[str(arguments[0])] = str(arguments[1])
        elif record.msg.startswith("Failed to convert node") and arguments:
            self.failed.append(str(arguments[0]))


def convert(frozen: Frozen, signature: Signature, opset: int) -> onnx.ModelProto:
    """Convert a frozen signature.

    Args:
        frozen: What `freeze` gave.
        signature: The signature that it was, for messages.
        opset: Of the model.

    Returns:
        An ONNX model whose inputs and outputs still have the frozen graph's names; all operators are ONNX's.

    Raises:
        WorkerFailure: It uses something that has no ONNX form (`unsupported_operator`), or tf2onnx fails
            (`export_failed`).
    """
    operators = {node.name: node.op for node in _all_nodes(frozen.graph)}
    with _listening() as log:
        try:
            model = _run(frozen, opset)
        except MemoryError:
            raise
        except Exception as error:
            if log.unknown or log.failed:
                nodes = log.unknown or {name: operators.get(name, "?") for name in log.failed}
                raise _unsupported(signature.name, nodes, "" if log.unknown else quoted(error)) from error
            raise WorkerFailure(
                FailureKind.EXPORT_FAILED,
                f"Signature {signature.name!r} could not be exported to ONNX: {quoted(error)}",
                "This is a limit or a fault of the exporter: please report it with a model that shows it.",
            ) from error
    unknown = dict(_foreign_nodes(model.graph, opset))
    if unknown:
        raise _unsupported(signature.name, {name: log.unknown.get(name, op) for name, op in unknown.items()}, "")
    return model


def _run(frozen: Frozen, opset: int) -> onnx.ModelProto:
    if frozen.lean:
        return _convert_and_optimize(frozen, opset, careful=False)
    try:
        return _convert_and_optimize(frozen, opset, careful=False)
    except _OptimizerFailed:
        return _convert_and_optimize(frozen, opset, careful=True)


def _convert_and_optimize(frozen: Frozen, opset: int, *, careful: bool) -> onnx.ModelProto:
    """Run tf2onnx.

    Args:
        frozen: The signature.
        opset: Of the model.
        careful: Skip an optimizer that fails, at the price of a copy of all weights before each.
    """
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph, name="")
        converted = tfonnx.process_tf_graph(
            graph,
            opset=opset,
            input_names=list(frozen.inputs),
            output_names=list(frozen.outputs),
            initialized_tables=dict(frozen.tables),
            const_node_values=dict(frozen.weights),
            custom_op_handlers=dict(HANDLERS),
        )
        try:
            better = optimizer.optimize_graph(converted, catch_errors=careful, optimizers=_OPTIMIZERS)
        except MemoryError:
            raise
        except Exception as error:
            raise _OptimizerFailed(quoted(error)) from error
        model = better.make_model("converted by tf2onnx")
    assert isinstance(model, onnx.ModelProto)  # noqa: S101 - gives tf2onnx's untyped answer its type
    return model


@contextmanager
def _listening() -> Iterator[_Log]:
    log, logger = _Log(), logging.getLogger("tf2onnx")
    logger.addHandler(log)
    try:
        yield log
    finally:
        logger.removeHandler(log)


def _all_nodes(graph: GraphDef) -> Iterator[NodeDef]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _foreign_nodes(graph: onnx.GraphProto, opset: int) -> Iterator[tuple[str, str]]:
    """Names and operators of the nodes that ONNX does not know."""
    for inner in subgraphs(graph):
        for node in inner.node:
            known = node.domain in _DOMAINS and defs.has(node.op_type, opset if not node.domain else 5, node.domain)
            if not known:
                yield node.name, node.op_type


def _unsupported(signature: str, nodes: dict[str, str], reason: str) -> WorkerFailure:
    by_operator: dict[str, list[str]] = {}
    for name, operator in sorted(nodes.items()):
        by_operator.setdefault(operator, []).append(_plain(name))
    culprits = "; ".join(
        f"{operator} (node {', '.join(names[:_NAMED_NODES])}"
        + (f" and {len(names) - _NAMED_NODES} more)" if len(names) > _NAMED_NODES else ")")
        for operator, names in by_operator.items()
    )
    because = f" ({reason})" if reason else ""
    return WorkerFailure(
        FailureKind.UNSUPPORTED_OPERATOR,
        f"Signature {signature!r} uses TensorFlow operators that cannot be converted to ONNX: {culprits}{because}.",
        "If the model has other signatures, and they are enough, name them with --signature. Otherwise save the model "
        "again without these operators (parsing and decoding, for instance, can move into the client).",
    )


def _plain(name: str) -> str:
    """A node's name without the calls that our wrapper and the SavedModel put around it."""
    return re.sub(r"^((Stateful)?PartitionedCall(_\d+)?/)+", "", name)
