"""Coverage-guided fuzzing of the code that meets a stranger's bytes: `make fuzz`."""
