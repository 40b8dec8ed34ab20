"""Pinned dependencies, with hashes, in the form that pip installs; `compile` makes them."""
