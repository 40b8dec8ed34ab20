"""The child process that alone imports TensorFlow: it loads, exports, and asks TensorFlow for golden answers.

It runs as `python -m converter.worker FOLDER`, started by `converter.export`, and speaks through files in that folder
(`protocol`). It imports neither `protos` (TensorFlow registers the same protobuf symbols) nor `torch` (the two crash in
one process), and of `server` only `server.arrays`. Only `protocol` and `sandbox` may be imported without TensorFlow.
"""
