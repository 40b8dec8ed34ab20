"""Checks for a machine with an NVIDIA GPU; docs/gpu.md says how to run them."""
