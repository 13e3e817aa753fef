"""Reads a run's result and shows it."""
