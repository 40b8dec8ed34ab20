"""The kinds of model that can be converted: one module for each, which recognises and describes it.

Nothing here imports TensorFlow: what a model is and what it offers is read from its files.
"""
