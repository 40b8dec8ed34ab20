"""Real clients, real processes, real models."""
