"""Node types for any payload: measure, break, throw away."""
