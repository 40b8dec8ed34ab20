"""Proving from an ONNX graph alone that no row of a batch can touch another: see `converter.rows.proof`."""
