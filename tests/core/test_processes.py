from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from edgeprune.core import processes
from edgeprune.core.processes import allowed_processors, crowded


@pytest.mark.parametrize(
    ("processors", "cores", "allowed", "busy", "expected"),
    [
        (2, 2, 2, 0, False),
        (2, 2, 2, 20, False),
        (2, 2, 2, 50, True),
        # One of two threads a core, the other idle.
        (8, 4, 8, 40, False),
        (8, 4, 8, 60, True),
        # A share of a large machine.
        (64, 32, 2, 90, False),
        (64, 32, 2, 99, True),
        # What a machine that does not tell its cores has.
        (4, None, 4, 20, True),
    ],
)
def test_other_programs_crowd_where_they_take_a_processor_of_ours(
    monkeypatch: pytest.MonkeyPatch, processors: int, cores: int | None, allowed: int, busy: float, expected: bool
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: processors if logical else cores)
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: busy)
    monkeypatch.setattr(processes, "allowed_processors", lambda: allowed)
    assert crowded() is expected


def test_a_program_on_every_processor_is_seen() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        assert crowded(0.5)
    finally:
        for each in busy:
            each.kill()
            each.wait()


def test_processors_are_those_that_this_process_may_use() -> None:
    told = (
        "import os; os.sched_setaffinity(0, {0}); from edgeprune.core.processes import *; print(allowed_processors())"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= allowed_processors() <= (os.cpu_count() or 1)
