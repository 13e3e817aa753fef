from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.tiny_models import mlp_logits

from edgeprune.core.errors import DeviceError
from edgeprune.core.types import MeasureSettings
from edgeprune.devices.local import LocalSession
from edgeprune.profilers import predict
from edgeprune.profilers.predict import predict_on_device

IMAGES = np.random.default_rng(1).random((23, 64), np.float32)


def test_logits_are_the_models(session: LocalSession, quick: MeasureSettings, full_model: Path) -> None:
    logits = predict_on_device(session, quick, full_model, IMAGES)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, mlp_logits(full_model, IMAGES), rtol=1e-4, atol=1e-4)
    assert {Path(name).suffix for name in os.listdir(session._work)} == {".py", ".onnx"}


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
