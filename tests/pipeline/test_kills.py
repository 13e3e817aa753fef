"""A run that is killed, and killed again when it is resumed, ends like one that nobody disturbed; nothing is left."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module
    spec.loader.exec_module(module)
    return module


kills = _load()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> object:
    made = kills.Bench(tmp_path_factory.mktemp("kills") / "bench")
    assert kills.undisturbed(made, "undisturbed") in (0, 3), (made.folder / "log").read_text()
    return made


def test_a_run_that_is_killed_twice_ends_like_the_undisturbed_one(bench: object) -> None:
    tally = kills.Tally()
    kills.chain(bench, "undisturbed", "killed", ["search", "validate"], random.Random(1), tally)
    assert tally.differences == []
    assert (tally.same, tally.ends, tally.folders, tally.probes.total()) == (1, 1, 0, 0)
    assert tally.kills.total() == 2
    log = (bench.path("killed") / "run.log").read_text()  # type: ignore[attr-defined]
    assert log.count("taken over from process") == 2


def test_a_run_that_goes_on_is_not_begun_a_second_time(bench: object) -> None:
    process = bench.begin("busy", resume=False)  # type: ignore[attr-defined]
    folder = bench.path("busy")  # type: ignore[attr-defined]
    until = time.monotonic() + 120
    while not (folder / "config.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    command = [sys.executable, "-m", "edgeprune", "run", "--runs-dir", str(folder.parent), "--resume", "busy"]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    before = sorted(each.name for each in folder.iterdir())
    process.kill()
    process.wait()
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: run 'busy' is in use by process {process.pid} on ")
    assert len(second.stderr.splitlines()) == 1
    assert ".owner" in before
    assert kills.Bench.stage(bench, "busy") in ("start", "prepare", "search")
