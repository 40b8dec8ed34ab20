"""One module per runtime, behind the interface in `interface`."""
