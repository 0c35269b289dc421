"""Ensemble's services, and what they share."""
