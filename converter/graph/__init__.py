"""From the ONNX that TensorFlow's export gives to cleaner ONNX, for every backend: one rewrite per module.

`pipeline.REWRITES` is the list, in its order; `pipeline.rewrite` applies it with its conditions checked. Nothing here
knows TensorFlow, packages or servers.
"""
