"""Tests of `server.services`."""
