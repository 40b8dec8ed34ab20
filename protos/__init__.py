"""The contracts: TensorFlow Serving's messages and the package manifest, and the stubs made from them."""
