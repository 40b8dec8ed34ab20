"""Bytes to tensors and back. Pure: no gRPC, no sockets, no logging, no clock."""
