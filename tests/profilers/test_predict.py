from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.stateful_tflite import write_recurrent, write_resource
from fakes.tiny_models import mlp_logits, write_endless, write_onnx
from onnx import TensorProto, helper

from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.session import DeviceSpec
from edgeprune.devices import open_session
from edgeprune.devices.channel import ChannelError
from edgeprune.devices.local import LocalSession
from edgeprune.profilers import predict
from edgeprune.profilers.client import ProbeClient
from edgeprune.profilers.ports import Feeding
from edgeprune.profilers.predict import predict_on_device

IMAGES = np.random.default_rng(1).random((23, 64), np.float32)


def test_logits_are_the_models(session: LocalSession, quick: MeasureSettings, full_model: Path) -> None:
    logits = predict_on_device(session, quick, full_model, IMAGES)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, mlp_logits(full_model, IMAGES), rtol=1e-4, atol=1e-4)
    assert {Path(name).suffix for name in os.listdir(session._work) if name != ".lock"} == {".py", ".onnx"}


def test_parts_come_together_in_order(
    session: LocalSession, quick: MeasureSettings, full_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict_on_device(session, quick, full_model, IMAGES)
    monkeypatch.setattr(predict, "_PART_BYTES", 5 * IMAGES[0].nbytes)
    np.testing.assert_array_equal(predict_on_device(session, quick, full_model, IMAGES), whole)


def test_bad_inputs_and_models_are_device_errors(
    session: LocalSession, quick: MeasureSettings, full_model: Path, not_a_model: Path
) -> None:
    with pytest.raises(DeviceError, match="does not fit"):
        predict_on_device(session, quick, full_model, np.zeros((2, 63), np.float32))
    with pytest.raises(DeviceError, match="cannot open the model") as caught:
        predict_on_device(session, quick, not_a_model, IMAGES)
    assert not caught.value.retryable
    with pytest.raises(ValueError, match="no examples"):
        predict_on_device(session, quick, full_model, IMAGES[:0])


def test_a_dead_probe_is_replaced_once(
    session: LocalSession, quick: MeasureSettings, full_model: Path, fails_once: Callable[[str, str], Path]
) -> None:
    logits = predict_on_device(session, quick, full_model, IMAGES, probe_file=fails_once("die", "predict"))
    assert logits.shape == (23, 10)


def test_a_probe_that_always_dies_is_a_device_error(
    session: LocalSession, quick: MeasureSettings, full_model: Path, fails_always: Callable[[str], Path]
) -> None:
    with pytest.raises(DeviceError, match="cannot predict"):
        predict_on_device(session, quick, full_model, IMAGES, probe_file=fails_always("die"))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_what_comes_back_is_looked_at(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "logits.npy").write_bytes(content)
    with pytest.raises(DeviceError, match="sent back"):
        predict._checked(tmp_path / "logits.npy", 3)
    np.save(tmp_path / "logits.npy", np.zeros((2, 10), np.float32))
    with pytest.raises(DeviceError, match="for 3 images"):
        predict._checked(tmp_path / "logits.npy", 3)


class Bar:
    def __init__(self) -> None:
        self.steps: list[float] = []

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.steps.append(steps)


LITERT = MeasureSettings("litert")


@pytest.mark.parametrize("kind", ["variable tensor", "resource"])
@pytest.mark.parametrize("python", ["this", "tflite-runtime"])
def test_state_is_reset_before_each_example_or_kept(kind: str, python: str, tmp_path: Path) -> None:
    """In LiteRT and in its predecessor."""
    if python == "tflite-runtime" and not os.environ.get("EDGEPRUNE_TFLITE_PYTHON"):
        pytest.skip("EDGEPRUNE_TFLITE_PYTHON names no Python with numpy < 2 and tflite-runtime; .ci/run makes one")
    resource = kind == "resource"
    file = tmp_path / "stateful.tflite"
    file = write_resource(file, 2) if resource else write_recurrent(file, 2, recurrence=1.0)
    images = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
    spec = DeviceSpec("local", "local", python=os.environ.get("EDGEPRUNE_TFLITE_PYTHON") if python != "this" else None)
    with open_session(spec) as opened:
        reset = predict_on_device(opened, LITERT, file, images, feeding=Feeding(reopen=resource))
        kept = predict_on_device(opened, LITERT, file, images, feeding=Feeding(keep=True))
    np.testing.assert_allclose(reset, images)
    np.testing.assert_allclose(kept, np.cumsum(images, axis=0))


def test_a_stream_that_is_cut_begins_again(
    session: LocalSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is lost with the process."""
    calls = []
    ask = ProbeClient.predict

    def cut_once(client: ProbeClient, *given: Any, **named: Any) -> int:
        calls.append(named["part"])
        if len(calls) == 3:
            raise ChannelError("crashed", "the process is gone")
        return ask(client, *given, **named)

    monkeypatch.setattr(ProbeClient, "predict", cut_once)
    monkeypatch.setattr(predict, "_GROWTH", 1)
    images, bar = np.ones((4, 2), np.float32), Bar()
    file = write_recurrent(tmp_path / "stateful.tflite", 2, recurrence=1.0)
    kept = predict_on_device(session, LITERT, file, images, feeding=Feeding(keep=True), bar=bar)
    np.testing.assert_allclose(kept, np.cumsum(images, axis=0))
    assert calls[:4] == [(0, 1), (1, 2), (2, 3), (0, 1)]
    assert sum(bar.steps) == 4


def test_fixed_batches_are_filled(session: LocalSession, quick: MeasureSettings, tmp_path: Path) -> None:
    add = helper.make_node("Add", ["x", "x"], ["y"])
    shapes = {"x": (TensorProto.FLOAT, [4, 3])}, {"y": (TensorProto.FLOAT, [4, 3])}
    file = write_onnx(tmp_path / "four.onnx", [add], *shapes)
    images = np.arange(18, dtype=np.float32).reshape(6, 3)
    np.testing.assert_array_equal(predict_on_device(session, quick, file, images, feeding=Feeding(batch=4)), 2 * images)
    with pytest.raises(DeviceError, match="does not fit"):
        predict_on_device(session, quick, file, images)


def test_progress_is_seen_and_one_endless_example_ends_it(
    session: LocalSession, quick: MeasureSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs at its first example is not followed by another one, which would hang there too."""
    file = write_endless(tmp_path / "endless.onnx", 2)
    started = []
    start = session.start
    monkeypatch.setattr(session, "start", lambda probe: started.append(1) or start(probe))
    images, bar = np.zeros((40, 2), np.float32), Bar()
    predict_on_device(session, quick, file, images, bar=bar)
    assert sum(bar.steps) == 40
    assert len(bar.steps) > 2
    started.clear()
    with pytest.raises(DeviceError, match="the first example took longer than 1 s") as caught:
        predict_on_device(session, quick, file, images + 1, example_s=1.0)
    assert not caught.value.retryable
    assert len(started) == 1
    # One in the middle may be the device's mood, so it is tried once more.
    images[20] = 1
    started.clear()
    with pytest.raises(DeviceError, match="longer than"):
        predict_on_device(session, quick, file, images, example_s=1.0)
    assert len(started) == 2


def test_integers_are_neither_cut_nor_wrapped(session: LocalSession, quick: MeasureSettings, tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    file = write_onnx(
        tmp_path / "bytes.onnx", [cast], {"x": (TensorProto.UINT8, [1, 2])}, {"y": (TensorProto.FLOAT, [1, 2])}
    )
    good = np.array([[0, 255], [7, 8]], np.float32)
    np.testing.assert_array_equal(predict_on_device(session, quick, file, good), good)
    for bad in (good + 0.5, good - 1, good + 1):
        with pytest.raises(DeviceError, match="do not fit an input of uint8"):
            predict_on_device(session, quick, file, bad)


def test_examples_are_worked_out_a_part_at_a_time(
    session: LocalSession, quick: MeasureSettings, full_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Lazy:
        def __len__(self) -> int:
            return len(IMAGES)

        def __getitem__(self, part: slice) -> Any:
            asked.append(len(IMAGES[part]))
            return IMAGES[part]

    whole = predict_on_device(session, quick, full_model, IMAGES)
    monkeypatch.setattr(predict, "_PART_BYTES", 4 * IMAGES[0].nbytes)
    np.testing.assert_array_equal(predict_on_device(session, quick, full_model, Lazy()), whole)
    assert max(asked) == 4
    assert sum(asked) >= len(IMAGES)
