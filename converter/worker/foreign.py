"""Names for the types of libraries that ship none: they say what a value is, and check nothing."""

from typing import Any

Trackable = Any  # what tf.saved_model.load gives
ConcreteFunction = Any
DType = Any
GraphDef = Any
NodeDef = Any
Tensor = Any  # tf.Tensor, eager or symbolic
TensorSpec = Any
TfVariable = Any  # tf.Variable
ConverterGraph = Any  # tf2onnx's Graph
ConverterNode = Any  # tf2onnx's Node
ConverterOptimizer = Any  # one of tf2onnx's
KerasModel = Any
