"""Tests of the checks for GPU machines, as far as a machine without one allows."""
