"""Messages of Segue's own."""
