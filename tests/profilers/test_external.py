"""Weights that lie outside the model's file, on every kind of device that has a file system of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from boards.board import HOST_PROGRAMS, Board
from fakes.foreign import write_external
from needs import needs

from edgeprune.core.clock import Deadline
from edgeprune.core.measurement import MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.devices.channel import ChannelError
from edgeprune.probe import PROBE
from edgeprune.profilers.client import ProbeClient, Pushed, push
from edgeprune.profilers.inputs import GivenInputs

SETTINGS = MeasureSettings("onnxruntime", warmup_runs=1, warmup_s=0.0, rounds=1, round_s=0.0, min_runs=3)


@pytest.mark.parametrize("kind", ["local", "simulated", pytest.param("ssh", marks=needs(*HOST_PROGRAMS))])
def test_weights_travel_with_the_model(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "ssh":
        board: Board = request.getfixturevalue("host_board")
        spec = board.spec()
    else:
        (tmp_path / "sim.toml").write_text("seed = 1\n[latency]\nbase_s = 1e-3\n")
        spec = find_device("local" if kind == "local" else f"simulated://{tmp_path}/sim.toml")
    model = write_external(tmp_path / "m.onnx", "weights/w.bin")
    with contextlib.closing(open_session(spec)) as session:
        first = push(session, model, GivenInputs())
        client = ProbeClient(session.start(PROBE), SETTINGS, spec.unit)
        client.hello([first], Deadline.after(60))
        assert client.single(first, 5.0, Deadline.after(60)).opened.binding == "kept"
        (tmp_path / "weights" / "w.bin").write_bytes(bytes(256))
        second = push(session, model, GivenInputs())
        assert second.sha256 == first.sha256
        assert second.content != first.content  # what is cached for one is not given for the other
        assert client.single(second, 5.0, Deadline.after(60)).count == 3 or spec.unit != "s"
        hostile = Pushed(first.path, first.sha256, {}, beside={"../../outside": first.beside["weights/w.bin"]})
        with pytest.raises(ChannelError, match="outside its folder"):
            client.single(hostile, 5.0, Deadline.after(60))
        client.close()
