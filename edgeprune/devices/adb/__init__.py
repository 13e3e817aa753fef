"""Phones over adb: Google's benchmark_model answers for the probe."""
