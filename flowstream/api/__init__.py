"""Graphs within a Python program: run them, steer them, put frames in and get frames out."""
