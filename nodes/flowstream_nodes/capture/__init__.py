"""Screens and cameras."""
