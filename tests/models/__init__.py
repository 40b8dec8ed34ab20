"""Small models that tests convert, each really written by TensorFlow or Keras."""
