"""Freeze a signature: one flat TensorFlow graph with the variables' values in it and names of our own choosing.

The loaded signature is wrapped in a function of ours before it is frozen. So every input is a placeholder that we
named, whatever characters its alias has; outputs that are inputs, constants, or the same tensor twice need no care
later, since each ends in an Identity node of its own; and TensorFlow 1 signatures look like all others.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import tensorflow as tf
from tf2onnx import tf_loader

from converter.worker.foreign import ConcreteFunction, GraphDef, Tensor, TfVariable, Trackable
from converter.worker.signature import Signature

_INPUT: Final = "segue_input_{}"
_OUTPUT: Final = "segue_output_{}"


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A frozen signature.

    Attributes:
        graph: The GraphDef, without variables.
        tables: Keys and values of the hash tables, by shared name, as tf2onnx wants them.
        inputs: Tensor names, in the order of the signature's inputs.
        outputs: Tensor names, in the order of the signature's outputs.
        variables: The tf.Variables that the signature reads.
    """

    graph: GraphDef
    tables: Mapping[bytes, tuple[Any, Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: tuple[TfVariable, ...]


def freeze(model: Trackable, signature: Signature, large_model_bytes: int) -> tuple[Frozen, bool]:
    """Freeze one signature of a loaded model.

    Args:
        model: What `load_saved_model` gave.
        signature: One of its signatures.
        large_model_bytes: Above this size of its variables the graph is not passed through TensorFlow's optimizer,
            which cannot take a graph of 2 GiB.

    Returns:
        The frozen signature, and whether it is large.
    """
    function = _wrapped(signature)
    variables = tuple(function.variables)
    large = sum(variable.dtype.size * variable.shape.num_elements() for variable in variables) > large_model_bytes
    inputs = tuple(f"{_INPUT.format(index)}:0" for index in range(len(signature.inputs)))
    graph, tables = tf_loader.from_trackable(
        model, function, list(inputs), [tensor.name for tensor in function.outputs], large
    )
    outputs = tuple(f"{_OUTPUT.format(index)}:0" for index in range(len(signature.outputs)))
    _name_outputs(graph, function, outputs, signature)
    return Frozen(graph, tables, inputs, outputs, variables), large


def _wrapped(signature: Signature) -> ConcreteFunction:
    aliases = [spec.alias for spec in signature.inputs]
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=_INPUT.format(index)) for index, spec in enumerate(signature.inputs)
    ]

    def answer(*tensors: Tensor) -> list[Tensor]:
        answers = signature.function(**dict(zip(aliases, tensors, strict=True)))
        return [tf.identity(answers[spec.alias]) for spec in signature.outputs]

    return tf.function(answer, input_signature=specs, autograph=False).get_concrete_function()


def _name_outputs(graph: GraphDef, function: ConcreteFunction, names: tuple[str, ...], signature: Signature) -> None:
    for name, tensor, spec in zip(names, function.outputs, signature.outputs, strict=True):
        node = graph.node.add(name=name.removesuffix(":0"), op="Identity", input=[tensor.name])
        node.attr["T"].type = spec.dtype.as_datatype_enum
