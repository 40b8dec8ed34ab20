"""The backends of one model version, side by side: proved, chosen between, and stepping in for one another."""
