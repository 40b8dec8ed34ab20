"""Tests of `benchmarks.overload`."""
