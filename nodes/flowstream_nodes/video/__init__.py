"""Node types that change raw pictures."""
