"""Three times the load that a server can bear: `python -m benchmarks.overload`."""
