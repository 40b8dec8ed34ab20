"""Tests of `converter`."""
