"""The way in for clients. Never imports the converter, nor anything of TensorFlow."""
