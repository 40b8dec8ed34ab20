"""Choosing backends."""
