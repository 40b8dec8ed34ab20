"""The tests, mirroring the source; `e2e` runs real clients against real processes."""
