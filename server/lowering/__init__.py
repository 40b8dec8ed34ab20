"""From ONNX to torch.nn.Module: one flat module that torch.compile and torch.export take as one graph.

`lower` is the way in. It needs the optional installation `segue-serving[torch]`; nothing else of the server imports it
but the PyTorch backend and its compiler.
"""

from server.lowering.module import LoweredModule, Port
from server.lowering.parameters import Origin, Variable
from server.lowering.walk import lower

__all__ = ["LoweredModule", "Origin", "Port", "Variable", "lower"]
