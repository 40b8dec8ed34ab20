"""Which backend runs a batch: pure logic. No I/O, no threads, no clock of its own, no numpy, and no backend."""
