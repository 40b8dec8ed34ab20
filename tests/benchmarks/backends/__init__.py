"""Tests of `benchmarks.backends`."""
