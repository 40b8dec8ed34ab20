"""Tests of `server.batching`."""
