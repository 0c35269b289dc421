"""The scripts that keep answers in Redis."""
