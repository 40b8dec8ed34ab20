"""Model packages on disk: read, verify, publish."""
