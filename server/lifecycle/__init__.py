"""From a package in the repository to a version that serves, and back."""
