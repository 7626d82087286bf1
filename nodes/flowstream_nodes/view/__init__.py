"""Sinks that show pictures to whoever sits here."""
