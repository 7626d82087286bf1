"""Node types where a graph meets the Python program that runs it."""
