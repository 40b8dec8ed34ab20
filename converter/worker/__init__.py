"""The child process that alone imports TensorFlow: it loads, exports, and asks TensorFlow for golden answers.

It runs as `python -m converter.worker FOLDER`, started by `converter.export`, and speaks through files in that folder
(`protocol`). It imports neither `protos` (TensorFlow registers the same protobuf symbols) nor `torch` (the two crash in
one process), and of `server` only `server.arrays`. `__main__`, `protocol` and `sandbox` run before TensorFlow is there;
`signature`, `samples`, `draw`, `graphs`, `interface` and `variables` do not need it either.
"""
