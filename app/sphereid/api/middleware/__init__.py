"""What surrounds every request: its id, its key, its limits."""
