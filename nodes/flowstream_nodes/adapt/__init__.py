"""Node types that steer others."""
