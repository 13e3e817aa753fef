"""Devices by name: the boards known, the user's book, and what a name means."""
