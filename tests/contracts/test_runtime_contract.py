"""What every runtime on every device must do through the probe; a new one adds a fixture parameter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.runtimes import RUNTIMES, RuntimeName
from edgeprune.core.session import DeviceSpec, Session
from edgeprune.devices import open_session
from edgeprune.exporters import EXPORTERS
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.profilers.predict import predict_on_device

IMAGES = np.random.default_rng(1).random((5, 1, 12, 12), np.float32)


@dataclass(frozen=True)
class Target:
    session: Session
    runtime: RuntimeName
    #: The package that must have been used.
    package: str

    @property
    def settings(self) -> MeasureSettings:
        return MeasureSettings(self.runtime, warmup_runs=2, warmup_s=0.0, rounds=3, round_s=0.0005, min_runs=3)


def spec_of(where: str) -> DeviceSpec:
    if where == "tflite-runtime":
        python = os.environ.get("EDGEPRUNE_TFLITE_PYTHON", "")
        if not python:
            pytest.skip("EDGEPRUNE_TFLITE_PYTHON names no Python with numpy < 2 and tflite-runtime; .ci/run makes one")
        return DeviceSpec("local", "local", python=python)
    return DeviceSpec("local", "local")


@pytest.fixture(params=["local onnxruntime", "local litert", "tflite-runtime litert"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    where, runtime = request.param.split()
    package = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}[runtime]
    with open_session(spec_of(where)) as session:
        yield Target(session, runtime, "tflite_runtime" if where == "tflite-runtime" else package)


def convolutional(channels: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36 * channels, 4)
    ).eval()


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return {"full": convolutional(32), "half": convolutional(4)}


@pytest.fixture(scope="module")
def files(networks: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("contract")
    found = {}
    for name, network in networks.items():
        for kind, row in EXPORTERS.items():
            found[name, kind] = folder / f"{name}.{kind}"
            row.export(network, torch.from_numpy(IMAGES[:2]), found[name, kind], {})
    return found


def test_logits_are_the_hosts(
    target: Target, files: dict[tuple[str, str], Path], networks: dict[str, nn.Module]
) -> None:
    file = files["half", RUNTIMES[target.runtime].format.name]
    logits = predict_on_device(target.session, target.settings, file, IMAGES)
    with torch.no_grad():
        expected = networks["half"](torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_candidates_are_measured_beside_the_baseline(target: Target, files: dict[tuple[str, str], Path]) -> None:
    kind = RUNTIMES[target.runtime].format.name
    with LoopProfiler(target.session, target.settings, files["full", kind]) as profiler:
        cost = profiler.measure(files["half", kind])
        again = profiler.measure(files["half", kind])
    assert isinstance(cost, Measurement)
    assert isinstance(again, Measurement)
    assert cost.facts["runtime"] == target.package
    assert cost.unit == target.session.spec.unit
    # The heap is what does not depend on the machine's mood: fewer channels hold less.
    assert 0 < cost.peak_bytes < cost.against_peak_bytes
    assert min(*cost.samples, *cost.against) > 0
    # Of a file opened again it is some 4 KB more: the C library counts the free blocks that it keeps at hand as in use.
    assert abs(again.peak_bytes - cost.peak_bytes) < 0.1 * (cost.against_peak_bytes - cost.peak_bytes) + 8192


def test_fresh_processes_are_compared(target: Target, files: dict[tuple[str, str], Path]) -> None:
    kind = RUNTIMES[target.runtime].format.name
    settings = MeasureSettings(target.runtime, warmup_runs=2, warmup_s=0.0, rounds=2, min_runs=2, processes=2)
    cost = compare_fresh(target.session, settings, files["half", kind], files["full", kind])
    assert isinstance(cost, Measurement)
    assert set(cost.process) == {0, 1}
    assert cost.states


def test_a_file_that_is_no_model_is_refused(target: Target, files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    kind = RUNTIMES[target.runtime].format.name
    broken = tmp_path / f"broken.{kind}"
    broken.write_bytes(files["half", kind].read_bytes()[:100])
    with LoopProfiler(target.session, target.settings, files["full", kind]) as profiler:
        assert isinstance(profiler.measure(files["half", kind]), Measurement)
        failure = profiler.measure(broken)
        assert isinstance(failure, Failure)
        # tflite_runtime does not check what it reads: it mostly dies of what lies there, and the probe is replaced.
        assert failure.kind in (("crashed", "refused") if target.package == "tflite_runtime" else ("refused",))
        assert "\n" not in failure.message
        assert isinstance(profiler.measure(files["half", kind]), Measurement)


def test_a_runtime_that_is_absent_says_what_to_install(target: Target, files: dict[tuple[str, str], Path]) -> None:
    if target.package != "tflite_runtime":
        pytest.skip("both runtimes are installed here")
    settings = MeasureSettings("onnxruntime")
    with pytest.raises(DeviceError, match="pip install onnxruntime"):
        predict_on_device(target.session, settings, files["half", "onnx"], IMAGES)
