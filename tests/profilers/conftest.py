from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.tiny_models import write_mlp

from edgeprune.core.measurement import MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.devices.local import LocalSession
from edgeprune.probe import PROBE

#: Short: what is tested is never how fast.
QUICK = MeasureSettings("onnxruntime", warmup_runs=2, warmup_s=0.0, rounds=3, round_s=0.0005, min_runs=3)


@pytest.fixture
def quick() -> MeasureSettings:
    return QUICK


@pytest.fixture
def session() -> Iterator[LocalSession]:
    with open_session(find_device("local")) as opened:
        yield opened


@pytest.fixture(scope="session")
def full_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mlp(tmp_path_factory.mktemp("models") / "full.onnx", (64, 256, 128, 10))


@pytest.fixture(scope="session")
def half_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mlp(tmp_path_factory.mktemp("models") / "half.onnx", (64, 128, 64, 10))


@pytest.fixture
def not_a_model(tmp_path: Path) -> Path:
    path = tmp_path / "not_a_model.onnx"
    path.write_bytes(b"these bytes are no model")
    return path


@pytest.fixture
def fails_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], Path]:
    """A probe file that misbehaves once, at an op, and is the real probe before and afterwards."""

    def make(how: str, op: str) -> Path:
        monkeypatch.setenv("EDGEPRUNE_FAKE_PROBE", how)
        monkeypatch.setenv("EDGEPRUNE_FAKE_OP", op)
        monkeypatch.setenv("EDGEPRUNE_FAKE_FLAG", str(tmp_path / "failed"))
        monkeypatch.setenv("EDGEPRUNE_REAL_PROBE", str(PROBE))
        return Path(__file__).parents[1] / "fakes" / "fake_probe.py"

    return make


@pytest.fixture
def fails_always(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A probe file that misbehaves at its first request."""

    def make(how: str) -> Path:
        monkeypatch.setenv("EDGEPRUNE_FAKE_PROBE", how)
        return Path(__file__).parents[1] / "fakes" / "fake_probe.py"

    return make
