"""Tests of `server.repository`."""
