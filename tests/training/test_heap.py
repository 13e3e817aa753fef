"""Memory that is freed and asked for again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from edgeprune.training.heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    return (torch.ones(12_000_000) + 1).sum()
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_pages_are_not_mapped_anew_in_every_step() -> None:
    usual, kept = (
        int(subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("usual", "kept")
    )
    # Not none: where a block is split anew some pages are touched for the first time.
    assert kept < usual / 4
