"""Small definitions of architecture families that people bring, with random weights."""

from benchmarks.families import between, classic, dense, mobile, modern, others, sequences, signals, transformers
from benchmarks.families.parts import FAMILIES, Family

__all__ = [
    "FAMILIES",
    "Family",
    "between",
    "classic",
    "dense",
    "mobile",
    "modern",
    "others",
    "sequences",
    "signals",
    "transformers",
]
