"""A frozen world in which policies that choose a backend per batch are judged: `python -m benchmarks.selection`."""
