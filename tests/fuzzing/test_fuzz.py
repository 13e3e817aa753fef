"""A twentieth of `benchmarks/fuzz.py`: readers raise nothing but our own errors, each in one line with what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

from fuzzing.mutations import mutate

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def test_mutated_files_over_all_readers() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--files", "1000", "--seed", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    last = done.stdout.strip().splitlines()[-1].split()
    assert last[:2] == ["all", "1000"]
    refused, accepted, others = map(int, last[2:5])
    # Damage that everybody shrugs off, or that nothing survives, would test nothing.
    assert refused > 500
    assert accepted > 100
    assert others == 0


def test_one_seed_makes_the_same_damage_and_another_does_not() -> None:
    whole = b'{"a": [1, 2, {"b": "c"}], "d": 1.5}'
    damaged = [mutate("x.json", whole, Random(f"{seed} 7")) for seed in (0, 0, 1)]
    assert damaged[0] == damaged[1]
    assert len({mutate("x.json", whole, Random(seed)) for seed in range(50)}) > 30
