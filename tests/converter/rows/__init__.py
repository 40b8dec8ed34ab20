"""Tests of `converter.rows`."""
