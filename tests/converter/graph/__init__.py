"""Tests of `converter.graph`, on graphs that TensorFlow and Keras really exported."""
