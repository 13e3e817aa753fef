"""The base install as a user makes it: its size, and what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes.tiny_models import write_mlp

_ROOT = Path(__file__).parents[2]
_MOST = 400 * 10**6


def _do(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [str(each) for each in command]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.soak
def test_the_base_install_is_small_and_measures(tmp_path: Path) -> None:
    here = tmp_path / "venv"
    assert _do(sys.executable, "-m", "venv", here, cwd=tmp_path).returncode == 0
    built = _do(here / "bin/pip", "install", "-q", "-c", _ROOT / "constraints.txt", _ROOT, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    size = sum(each.stat().st_size for each in here.rglob("*") if each.is_file() and not each.is_symlink())
    assert size < _MOST
    write_mlp(tmp_path / "a.onnx")
    profiled = _do(here / "bin/edgeprune", "profile", "a.onnx", "--processes", "1", cwd=tmp_path)
    assert profiled.returncode == 0, profiled.stderr
    assert "a.onnx" in profiled.stdout
    refused = _do(here / "bin/edgeprune", "run", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: this needs torch, ")
    assert not (tmp_path / "runs").exists()
