"""Node types that change raw sound."""
