"""Walking through ONNX graphs."""

from collections.abc import Iterator

import onnx


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside its nodes, outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) and inner.ByteSize():
                    yield from subgraphs(inner)
