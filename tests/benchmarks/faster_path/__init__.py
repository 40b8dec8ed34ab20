"""Tests of benchmarks/faster_path."""
