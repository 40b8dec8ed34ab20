"""Tests of `server.lifecycle`."""
