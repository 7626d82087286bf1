"""Sources that make their own pictures and sound."""
