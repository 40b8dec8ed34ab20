"""Runnable examples: the demonstration, and clients."""
