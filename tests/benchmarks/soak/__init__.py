"""Tests of `benchmarks.soak`."""
