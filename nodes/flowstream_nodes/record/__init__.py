"""Recording encoded media to files."""
