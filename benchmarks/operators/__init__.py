"""Every operator that an export can hold, through the ONNX standard's own node tests: `python -m benchmarks.operators`."""
