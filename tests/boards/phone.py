"""A phone for tests: the real adb client, with a server of its own, and a device-side double that it talks to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.fake_adbd import FakePhone

#: Plays Google's benchmark_model, on this machine.
BINARY = Path(__file__).parents[1] / "fakes" / "fake_benchmark_model"


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An adb server of our own, with keys of its own; never the user's at 5037."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("ADB_SERVER_SOCKET", raising=False)
        yield
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=20, check=False)


@pytest.fixture
def phone(adb_server: None, tmp_path: Path) -> Iterator[FakePhone]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with FakePhone(tmp_path / "phone", path) as started:
        yield started
    subprocess.run(["adb", "disconnect", started.address], capture_output=True, timeout=20, check=False)
