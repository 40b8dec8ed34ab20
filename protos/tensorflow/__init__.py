"""TensorFlow's own messages: tensors, examples, signatures, SavedModels."""
