"""A run that is killed, and killed again when it is resumed, ends like one that nobody disturbed; nothing is left."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"


def test_a_run_that_is_killed_twice_ends_like_the_undisturbed_one(tmp_path: Path) -> None:
    folder = tmp_path / "kills"
    command = [sys.executable, str(KILLS), "--kills", "2", "--chain", "2", "--stages", "search", "validate"]
    done = subprocess.run([*command, "--folder", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 runs ended like the undisturbed one; 0 folders or files left" in done.stdout
    log = (folder / "runs" / "run-0" / "run.log").read_text()
    assert log.count("taken over from process") == 2

    assert log.count("== search") == 3


def test_a_run_that_goes_on_is_not_begun_a_second_time(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "edgeprune", "run", "--runs-dir", str(tmp_path), "--quiet"]
    folder = tmp_path / "busy"
    with subprocess.Popen([*run, "--name", "busy", "--train-epochs", "2"]) as first:
        until = time.monotonic() + 120
        while not (folder / "config.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        second = subprocess.run([*run, "--resume", "busy"], capture_output=True, text=True, check=False)
        assert first.poll() is None
        first.kill()
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: run 'busy' is in use by process {first.pid} on ")
    assert len(second.stderr.splitlines()) == 1
    assert '"status": "running"' in (folder / "result.json").read_text()
