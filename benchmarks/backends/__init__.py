"""Every way to run one model, side by side: `python -m benchmarks.backends`."""
