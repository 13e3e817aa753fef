"""The whole way over SSH as a user types it: a real sshd, and behind it an aarch64 userland with the runtimes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from boards.board import ARM_PROGRAMS, Board
from boards.relay import relaying
from fakes.tiny_models import write_mlp
from needs import needs

pytestmark = [needs(*ARM_PROGRAMS), pytest.mark.soak]


def edgeprune(*words: str, folder: Path, code: int = 0) -> str:
    command = [sys.executable, "-m", "edgeprune", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def project(arm_board: Board, tmp_path: Path) -> Path:
    """A folder whose own book names the board."""
    spec = arm_board.spec()
    edgeprune("devices", "add", "rpi4", spec.address, "--folder", spec.folder, "--project", folder=tmp_path)
    return tmp_path


def test_check(project: Path) -> None:
    said = json.loads(edgeprune("devices", "check", "rpi4", "--json", folder=project))
    found = {check["name"]: check["status"] for check in said["checks"]}
    assert said["fit"]
    assert {found[name] for name in ("reach", "python", "onnxruntime", "litert", "disk")} == {"PASS"}


def test_profile(project: Path) -> None:
    file = write_mlp(project / "net.onnx", (64, 300, 10))
    options = ["--device", "rpi4", "--processes", "1", "--min-seconds", "0.1", "--json"]
    said = json.loads(edgeprune("profile", file.name, *options, folder=project))
    (profile,) = said["profiles"]
    assert profile["unit"] == "s"
    assert profile["facts"]["machine"] == "aarch64"
    assert profile["peak_bytes"] > file.stat().st_size / 2
    # The file is kept on the board for the next time, until it is cleaned.
    freed = edgeprune("devices", "clean", "rpi4", folder=project)
    assert "freed" in freed
    assert not freed.startswith("0 ")


def test_run_over_a_bad_link(arm_board: Board, tmp_path: Path) -> None:
    with relaying(arm_board.port) as link:
        link.delay_s = 0.005
        spec = arm_board.spec(link)
        edgeprune("devices", "add", "rpi4", spec.address, "--folder", spec.folder, "--project", folder=tmp_path)
        options = ["--device", "rpi4", "--episodes", "3", "--train-epochs", "3", "--finetune-epochs", "1"]
        options += ["--finalists", "1", "--processes", "3", "--max-drop", "90", "--formats", "onnx", "--name", "board"]
        edgeprune("run", *options, "--quiet", folder=tmp_path)
    result = json.loads((tmp_path / "runs/board/result.json").read_text())
    assert result["device"]["kind"] == "ssh"
    assert result["device"]["facts"]["machine"] == "aarch64"
    assert [item["agreement"] for item in result["artifacts"]] == [1.0]


def test_a_board_that_is_away_is_one_line(tmp_path: Path) -> None:
    edgeprune("devices", "add", "rpi4", "ssh://nobody@127.0.0.1:1", "--project", folder=tmp_path)
    said = edgeprune("run", "--device", "rpi4", folder=tmp_path, code=4)
    assert said.strip().splitlines()[-1].startswith("error: ")
