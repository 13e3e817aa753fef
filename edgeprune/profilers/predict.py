"""Logits of a model file as the device computes them: what accuracy is proven with."""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.clock import Deadline
from edgeprune.core.devices import Session
from edgeprune.core.errors import DeviceError
from edgeprune.core.types import MeasureSettings
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.client import PROBE, ProbeClient, in_fresh_process, push_patiently

#: Images travel in parts of about this size, which is all the room they need on the device.
_PART_BYTES = 32 << 20


def predict_on_device(
    session: Session,
    settings: MeasureSettings,
    artifact: Path,
    inputs: NDArray[np.float32],
    *,
    timeout_s: float = 600.0,
    probe_file: Path = PROBE,
) -> NDArray[np.float32]:
    """Run every image through the model on the device, one at a time.

    inputs   (images, ...)      float32, as the model takes them (NCHW or NHWC: shapes must agree)
    returns  (images, classes)  float32; integer models are fed and read in real values

    A probe that fails is replaced (see `retry.persist`); `timeout_s` is for each part of 32 MiB.

    Raises DeviceError, and ValueError without images.
    """
    if not len(inputs):
        raise ValueError("no images to predict")
    count = max(1, _PART_BYTES // max(1, inputs[0].nbytes))
    parts: list[NDArray[np.float32]] = []

    def predict(client: ProbeClient, deadline: Deadline) -> None:
        """What is left to do: a link that is cut costs one part."""
        client.hello([], deadline)
        client.load("model", pushed, deadline)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            for start in range(count * len(parts), len(inputs), count):
                images = inputs[start : start + count]
                parts.append(_part(session, client, images, Path(folder), Deadline.after(timeout_s)))

    try:
        pushed = push_patiently(session, artifact)
        while count * len(parts) < len(inputs):
            done = len(parts)
            try:
                in_fresh_process(session, settings, predict, timeout_s=timeout_s, probe_file=probe_file)
            except ChannelError as error:
                # Whoever got further starts with new patience: a long test on a bad link is cut more than once.
                if not error.retryable or len(parts) == done:
                    raise
        return np.concatenate(parts)
    except ChannelError as error:
        where = f"{artifact.name} on {session.spec.name}"
        said = f"cannot predict with {where}: {error.message}"
        raise ChannelError(error.kind, said, error.hint, retryable=error.retryable) from error


def _part(
    session: Session, client: ProbeClient, images: NDArray[np.float32], folder: Path, deadline: Deadline
) -> NDArray[np.float32]:
    here, back = folder / "images.npy", folder / "logits.npy"
    np.save(here, np.asarray(images, np.float32), allow_pickle=False)
    sent, there = session.push(here), session.scratch("logits.npy")
    try:
        client.predict("model", sent, there, deadline)
        session.pull(there, back)
    finally:
        # A device that is gone keeps them; they go when its cache is full.
        with contextlib.suppress(DeviceError):
            session.remove(sent)
            session.remove(there)
    return _checked(back, len(images))


def _checked(path: Path, count: int) -> NDArray[np.float32]:
    """The logits (count, classes) of a file that came from the device."""
    try:
        logits: Any = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ChannelError("garbled", f"the device sent back no array: {error}") from error
    if logits.ndim != 2 or len(logits) != count or logits.dtype != np.float32 or math.prod(logits.shape) == 0:
        raise ChannelError("garbled", f"the device sent back {logits.dtype}{logits.shape} for {count} images")
    checked: NDArray[np.float32] = logits
    return checked
