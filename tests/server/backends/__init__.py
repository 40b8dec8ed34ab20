"""Tests of `server.backends`."""
