"""Which backend runs a batch: pure logic, driven by a clock that is passed in."""
