"""Tests of `server.lowering.export`."""
