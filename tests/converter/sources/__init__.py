"""Tests of the recognition of models."""
