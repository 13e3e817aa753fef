"""Measuring under emulation: the same figures each time, whatever was measured before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fakes.tiny_models import mlp_logits, write_mlp
from fakes.tiny_tflite import write_tflite
from needs import needs

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.channel import ProcessChannel
from edgeprune.devices.emulator import setup
from edgeprune.devices.emulator.session import EmulatedSession
from edgeprune.probe import PROBE
from edgeprune.profilers.client import push
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.profilers.predict import predict_on_device

pytestmark = [needs("qemu-aarch64", "gcc", "apt-get", "dpkg-deb"), pytest.mark.soak]

WIDTHS = {"full": (64, 256, 128, 10), "half": (64, 128, 64, 10), "small": (64, 24, 12, 10)}
WRITERS = {"onnxruntime": (write_mlp, "onnx"), "litert": (write_tflite, "tflite")}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("models")
    return {
        runtime: {name: write(folder / f"{name}.{suffix}", widths) for name, widths in WIDTHS.items()}
        for runtime, (write, suffix) in WRITERS.items()
    }


@pytest.fixture
def emulated() -> Iterator[EmulatedSession]:
    setup.install("rpi4", print)
    with EmulatedSession(DeviceSpec("emulated-rpi4", "emulated", board="rpi4")) as session:
        yield session


class Guest:
    """A probe in a fresh guest, asked for raw figures."""

    def __init__(self, session: EmulatedSession, models: dict[str, Path], runtime: str, probe: Path = PROBE) -> None:
        self.files = {}
        for name, path in models.items():
            pushed = push(session, path)
            self.files[name] = {"path": pushed.path, "sha256": pushed.sha256}
        self.channel: ProcessChannel = session.start(probe)
        self.hello = self.ask(op="hello", runtime=runtime, threads=1, warm=[self.files["full"]])

    def ask(self, **request: Any) -> dict[str, Any]:
        return self.channel.request(request, Deadline.after(60))

    def figures(self, *names: str) -> dict[str, Any]:
        found = {}
        for name in names:
            race = self.ask(op="race", a=self.files[name], b=self.files["full"], warmup_runs=3)
            held = self.ask(op="memory", **self.files[name])["bytes"]
            # What is reported. A single run may differ, where it comes two seconds after its model was opened.
            found[name] = (race["samples_a"], race["samples_b"], held)
        return found

    def measuring(self) -> psutil.Process:
        """The process that waits for the next request, a child of the one that forks for each."""
        # The other child looks whether the host lives.
        _, forks = sorted(psutil.Process(self.channel.pid).children(), key=psutil.Process.create_time)
        before, steady = forks.children(), 0
        deadline = Deadline.after(10)
        while deadline.left():  # the one that answered last may still be on its way out
            time.sleep(0.05)
            now = forks.children()
            steady = steady + 1 if len(now) == 1 and now == before else 0
            if steady == 5:
                return now[0]
            before = now
        raise AssertionError("no process waits for a request")


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_three_guests_agree_to_the_instruction_and_the_byte_whatever_came_before(
    emulated: EmulatedSession, models: dict[str, dict[str, Path]], runtime: str, not_a_model: Path
) -> None:
    first = Guest(emulated, models[runtime], runtime).figures("full", "half", "small")
    second = Guest(emulated, models[runtime], runtime).figures("small", "full", "half")
    third = Guest(emulated, models[runtime], runtime)
    bad = push(emulated, not_a_model)
    assert not third.ask(op="memory", path=bad.path, sha256=bad.sha256)["ok"]
    assert third.ask(op="load", id="another", **third.files["small"])["ok"]
    assert first == second == third.figures("half", "small", "full")
    counts = [first[name][0][0] for name in ("full", "half", "small")]
    held = [first[name][2] for name in ("full", "half", "small")]
    assert counts == sorted(counts, reverse=True)
    assert held == sorted(held, reverse=True)
    assert first["full"][0] == first["full"][1]  # against itself: the same count
    macs = {name: sum(a * b for a, b in pairwise(wide)) for name, wide in WIDTHS.items()}
    # Four multiply-accumulates an instruction, and what surrounds them: the counts are those of the model's work.
    assert counts[0] - counts[1] > (macs["full"] - macs["half"]) / 5


def test_figures_are_the_same_where_opening_a_model_is_slow(
    emulated: EmulatedSession, models: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    # As on a busy machine: the first opening takes over the two seconds after which onnxruntime notes its usage.
    opened = "        self._shrinking = ort.RunOptions()\n"
    wait = "        with open('wait') as stream:\n            time.sleep(float(stream.read()))\n"
    once = "        open('wait', 'w').write('0.0')\n"
    text = PROBE.read_text()
    assert text.count(opened) == 1
    probe = tmp_path / "probe.py"
    probe.write_text(text.replace(opened, opened + wait + once))

    def measured(seconds: str) -> dict[str, Any]:
        (emulated._work / "wait").write_text(seconds)
        figures = Guest(emulated, models["onnxruntime"], "onnxruntime", probe).figures("half")
        assert (emulated._work / "wait").read_text() == "0.0"
        return figures

    # Where the machine is so busy that a second opening takes as long, a guest differs all the same (decision 6).
    # Without the opening for nothing each slow one does.
    assert any(measured("0.0") == measured("2.5") for _ in range(3))


def test_the_loop_measures_in_instructions(emulated: EmulatedSession, models: dict[str, dict[str, Path]]) -> None:
    files = models["onnxruntime"]
    with LoopProfiler(emulated, MeasureSettings("onnxruntime"), files["full"]) as profiler:
        half, full = profiler.measure(files["half"]), profiler.measure(files["full"])
        assert profiler.facts()["unit"] == "instructions"
    assert isinstance(half, Measurement)
    assert isinstance(full, Measurement)
    assert half.unit == "instructions"
    assert (half.load_s, half.first_s) == (None, None)
    assert full.quotient == 1.0
    assert full.memory_quotient == 1.0
    assert half.quotient < 0.9  # small networks are mostly what surrounds the layers
    assert half.memory_quotient < 0.7


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_outputs_are_those_of_this_machine(
    emulated: EmulatedSession, models: dict[str, dict[str, Path]], runtime: RuntimeName
) -> None:
    images = np.random.default_rng(0).random((8, 64), dtype=np.float32)
    there = predict_on_device(emulated, MeasureSettings(runtime), models[runtime]["full"], images)
    here = mlp_logits(models["onnxruntime"]["full"], images)
    assert there.shape == here.shape
    if runtime == "litert":
        from edgeprune.artifacts import run_model

        here = run_model("tflite", models["litert"]["full"], images)
    assert np.abs(there - here).max() < 1e-5


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGKILL, "killed"), (signal.SIGSEGV, "crashed")])
def test_a_measuring_process_that_dies_fails_its_own_request_only(
    emulated: EmulatedSession, models: dict[str, dict[str, Path]], number: int, kind: str
) -> None:
    guest = Guest(emulated, models["onnxruntime"], "onnxruntime")
    before = guest.ask(op="memory", **guest.files["half"])["bytes"]
    os.kill(guest.measuring().pid, number)
    answer = guest.ask(op="memory", **guest.files["small"])
    assert (answer["ok"], answer["kind"]) == (False, kind)
    assert str(int(number)) in answer["error"]
    # What the killed request left behind is not taken for the next one's answer.
    answer = guest.ask(op="memory", **guest.files["small"])
    assert answer["ok"], answer
    assert answer["bytes"] < before
    assert guest.ask(op="memory", **guest.files["full"])["bytes"] > before


def test_the_loop_goes_on_in_a_fresh_guest(emulated: EmulatedSession, models: dict[str, dict[str, Path]]) -> None:
    files, said = models["onnxruntime"], list[str]()
    with LoopProfiler(emulated, MeasureSettings("onnxruntime"), files["full"], log=said.append) as profiler:
        first = profiler.measure(files["half"])
        assert profiler._client is not None
        os.kill(profiler._client._channel.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        again = profiler.measure(files["half"])
    assert isinstance(first, Measurement)
    assert isinstance(again, Measurement)
    assert (first.samples, first.against, first.peak_bytes) == (again.samples, again.against, again.peak_bytes)
    assert len(said) == 1


def test_nothing_runs_on_after_the_session(emulated: EmulatedSession, models: dict[str, dict[str, Path]]) -> None:
    guest = Guest(emulated, models["onnxruntime"], "onnxruntime")
    guest.measuring()
    processes = [psutil.Process(guest.channel.pid), *psutil.Process(guest.channel.pid).children(recursive=True)]
    assert len(processes) == 4
    emulated.close()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


def test_several_threads_are_refused(emulated: EmulatedSession, models: dict[str, dict[str, Path]]) -> None:
    with (
        LoopProfiler(emulated, MeasureSettings("onnxruntime", threads=4), models["onnxruntime"]["full"]) as profiler,
        pytest.raises(DeviceError, match="use --threads 1"),
    ):
        profiler.measure(models["onnxruntime"]["half"])


def test_what_needs_time_is_refused(emulated: EmulatedSession, models: dict[str, dict[str, Path]]) -> None:
    guest = Guest(emulated, models["onnxruntime"], "onnxruntime")
    for op in ("single", "throughput", "operators"):
        assert op not in guest.hello["ops"]
        answer = guest.ask(op=op, **guest.files["small"])
        assert (answer["ok"], answer["kind"]) == (False, "refused")
