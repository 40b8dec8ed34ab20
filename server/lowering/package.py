"""What a model package knows of its weights, in the form that `lower` takes."""

import math

from protos.segue.package_pb2 import ModelPackage
from protos.segue.package_pb2 import Variable as VariableMessage
from server.lowering.parameters import Variable


def variables_of(manifest: ModelPackage, onnx_file: str) -> tuple[dict[str, Variable], tuple[Variable, ...]]:
    """The TensorFlow variables behind one ONNX file of a package.

    Args:
        manifest: The package's.
        onnx_file: Name of the file in the package.

    Returns:
        Initializer -> variable (where several have its value, the first), and the variables that no initializer holds
        as they were: the arguments `variables` and `folded` of `lower`.
    """
    held = {
        one.name: _variable(one.variables[0])
        for one in manifest.initializers
        if one.onnx_file == onnx_file and one.variables
    }
    return held, tuple(_variable(one) for one in manifest.unmapped_variables)


def _variable(message: VariableMessage) -> Variable:
    return Variable(message.name, message.trainable, math.prod(message.shape))
