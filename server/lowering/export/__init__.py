"""A model package as a folder for PyTorch: the module's source, its weights in safetensors, a check, a README.

`to_torch` is the way in. It needs the optional installation `segue-serving[torch]`.
"""

from server.lowering.export.folder import Written, to_torch

__all__ = ["Written", "to_torch"]
