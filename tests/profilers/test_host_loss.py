"""A host that is killed while its probe works: over every transport the probe ends soon, and nothing of it is left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boards.board import HOST_PROGRAMS, Board, processes
from fakes.tiny_models import write_endless, write_mlp
from fakes.tiny_tflite import write_tflite
from needs import needs

from edgeprune.core.session import DeviceSpec
from edgeprune.devices.emulator import setup

#: What is promised.
LIMIT_S = 5.0
#: Asks a device for something that takes for ever; says so when the device is about to begin.
HOST = """
import json, sys
from edgeprune.core.clock import Deadline
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.session import DeviceSpec
from edgeprune.devices import open_session
from edgeprune.profilers.client import ProbeClient, push
from edgeprune.probe import PROBE
from pathlib import Path
spec, runtime, file = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
with open_session(DeviceSpec(**spec)) as session:
    channel = session.start(PROBE)
    client = ProbeClient(channel, MeasureSettings(runtime), session.spec.unit)
    client.hello([], Deadline.after(60))
    model = push(session, file)
    print(json.dumps(session.scratch("x")), flush=True)
    if sys.argv[4] == "load":
        client.load("m", model, Deadline.after(600))
    how = dict(rounds=9999, round_s=60.0, min_runs=9, warmup_runs=1, warmup_s=0.0, most_s=600.0)
    channel.request({"op": "race", "a": model.request, "b": None, **how}, Deadline.after(600))
"""
Host = Callable[..., "tuple[subprocess.Popen[str], str]"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Begins a host with temporary folders of its own; the process, and the device's scratch folder."""
    with contextlib.ExitStack() as stack:

        def begin(spec: DeviceSpec, runtime: str, file: Path, op: str = "load") -> tuple[subprocess.Popen[str], str]:
            temporary = tmp_path / "tmp"
            temporary.mkdir()
            given: dict[str, Any] = {key: value for key, value in dataclasses.asdict(spec).items() if value}
            process = subprocess.Popen(
                [sys.executable, "-c", HOST, json.dumps(given), runtime, str(file), op],
                env={**os.environ, "TMPDIR": str(temporary)},
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            return process, str(Path(json.loads(process.stdout.readline())).parent)

        yield begin


def busy(pid: int) -> bool:
    """Whether a process has worked a second for its model: it takes less to begin."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 1.0
    return False


def lose(process: subprocess.Popen[str], where: str) -> None:
    """Kill the host while a probe with `where` among its words works, and see that none is left in time."""
    until = time.monotonic() + 60
    while not any(map(busy, processes(where))) and time.monotonic() < until:
        time.sleep(0.1)
    assert any(map(busy, processes(where)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + LIMIT_S
    while processes(where) and time.monotonic() < until:
        time.sleep(0.1)
    assert not processes(where)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_probe_on_this_machine(host: Host, tmp_path: Path, runtime: str) -> None:
    spec = DeviceSpec("local", "local")
    if runtime == "onnxruntime":
        lose(*host(spec, runtime, write_endless(tmp_path / "endless.onnx", 4)))
    else:
        lose(*host(spec, runtime, write_tflite(tmp_path / "m.tflite", (64, 256, 10)), "race"))


@needs(*HOST_PROGRAMS)
@pytest.mark.parametrize("keeper", [True, False])
def test_a_probe_on_a_board_with_its_keeper_and_without(
    host: Host, tmp_path: Path, host_board: Board, keeper: bool
) -> None:
    process, scratch = host(host_board.spec(), "onnxruntime", write_endless(tmp_path / "endless.onnx", 4))
    if not keeper:
        for pid in processes("edgeprune-keeper-"):
            if scratch not in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
    lose(process, str(Path(scratch).parent))
    assert not keeper or not Path(scratch).exists()


@needs("qemu-aarch64", "gcc", "apt-get", "dpkg-deb")
def test_a_probe_on_an_emulated_board_and_what_it_forked(host: Host, tmp_path: Path) -> None:
    setup.install("rpi4", print)
    spec = DeviceSpec("emulated-rpi4", "emulated", board="emulated-rpi4")
    lose(*host(spec, "onnxruntime", write_endless(tmp_path / "endless.onnx", 4), "race"))


def test_a_probe_that_ends_leaves_no_process_beside_it(tmp_path: Path) -> None:
    from edgeprune.core.clock import Deadline
    from edgeprune.devices.local import LocalSession
    from edgeprune.probe import PROBE
    from edgeprune.profilers.client import push

    with LocalSession(DeviceSpec("local", "local")) as session:
        where = str(Path(session.scratch("x")).parent)
        channels = [session.start(PROBE) for _ in range(3)]
        model = push(session, write_mlp(tmp_path / "m.onnx"))
        for channel in channels:
            channel.request({"op": "hello", "runtime": "onnxruntime", "threads": 1, "warm": []}, Deadline.after(60))
            assert channel.request({"op": "load", "id": "m", **model.request}, Deadline.after(60))["ok"]
        assert len(processes(where)) == 6
        os.kill(channels[0].pid, signal.SIGKILL)
        channels[1].close()
        channels[2].request({"op": "quit"}, Deadline.after(60))
        until = time.monotonic() + LIMIT_S
        while [pid for pid in processes(where) if pid != channels[0].pid] and time.monotonic() < until:
            time.sleep(0.05)
        assert not [pid for pid in processes(where) if pid != channels[0].pid]
