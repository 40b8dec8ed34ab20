"""Dynamic batching: requests that wait while a model runs are answered together in its next run."""
