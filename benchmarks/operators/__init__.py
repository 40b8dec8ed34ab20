"""The ONNX standard's own node tests for every operator that an export can hold: `python -m benchmarks.operators`."""
