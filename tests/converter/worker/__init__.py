"""Tests of the child process: its pure parts in this process, the whole in its own."""
