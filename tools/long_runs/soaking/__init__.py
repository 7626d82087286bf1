"""What ``tools/long soak`` is made of."""
