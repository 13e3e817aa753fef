"""What each operator of a file takes; where that cannot be had nothing else is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.tiny_models import write_mlp

from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.session import DeviceSpec, Session
from edgeprune.devices import open_session
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.client import ProbeClient
from edgeprune.profilers.operators import time_operators

SETTINGS = MeasureSettings("onnxruntime")


@pytest.fixture
def session() -> Iterator[Session]:
    with open_session(DeviceSpec("local", "local")) as session:
        yield session


def test_the_runtimes_own_profiler_tells(session: Session, tmp_path: Path) -> None:
    found, why = time_operators(session, SETTINGS, write_mlp(tmp_path / "a.onnx"), 1e-5)
    assert why == ""
    assert sum("Gemm" in each.type for each in found) == 2


@pytest.mark.parametrize(("latency", "runs"), [(1e-5, 30), (0.5, 10), (60.0, 3)])
def test_a_slow_file_is_run_less_often(
    latency: float, runs: int, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def operators(_: object, __: object, count: int, *___: object) -> tuple[None, str]:
        asked.append(count)
        return None, "it does not tell"

    monkeypatch.setattr(ProbeClient, "operators", operators)
    assert time_operators(session, SETTINGS, write_mlp(tmp_path / "a.onnx"), latency) == ((), "it does not tell")
    assert asked == [runs]


@pytest.mark.parametrize("error", [ChannelError("full", "there is no room"), DeviceError("there is no room")])
def test_a_failure_is_a_reason(
    error: DeviceError, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(*_: object) -> None:
        raise error

    monkeypatch.setattr("edgeprune.profilers.operators.push_patiently", push)
    assert time_operators(session, SETTINGS, tmp_path / "a.onnx", 1e-5) == ((), "there is no room")
