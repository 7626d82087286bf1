"""Media files as sources."""
