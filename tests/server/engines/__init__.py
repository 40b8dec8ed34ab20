"""Tests of server.engines."""
