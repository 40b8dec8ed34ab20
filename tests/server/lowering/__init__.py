"""Tests of `server.lowering`."""
