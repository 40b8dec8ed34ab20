"""Tests of `benchmarks.selection_traces`."""
