"""Fit, distil and score networks on the host."""
