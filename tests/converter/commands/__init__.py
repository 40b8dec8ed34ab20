"""Tests of `converter.commands`."""
