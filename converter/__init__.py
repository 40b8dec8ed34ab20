"""The way out of TensorFlow: convert a model once, prove it, publish it. The server never imports this."""
