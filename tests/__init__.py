"""Segue's tests; the folders mirror the source tree."""
