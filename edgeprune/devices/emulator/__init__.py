"""Emulated boards: an arm64 Python under qemu-user that counts the instructions of a model. Never called a board."""
