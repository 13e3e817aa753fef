"""How many images a model file classifies right on a device: `edgeprune validate`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from edgeprune.core.clock import Deadline
from edgeprune.core.devices import Session
from edgeprune.core.errors import DeviceError, ModelError
from edgeprune.core.types import MeasureSettings, TensorSpec
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.client import ProbeClient, in_fresh_process, push_patiently
from edgeprune.profilers.predict import predict_on_device

_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Images classified right, and where the true share lies with 95 % confidence (Wilson's interval)."""

    correct: int
    images: int
    low: float
    high: float
    #: Wall time per image, sending and fetching included.
    seconds_per_image: float
    #: How the images were laid out: as they came, or "NHWC" where only that fits the file.
    layout: str

    @property
    def share(self) -> float:
        """Share of the images classified right."""
        return self.correct / self.images


def accuracy_on_device(
    session: Session,
    settings: MeasureSettings,
    file: Path,
    inputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
) -> Accuracy:
    """Run every image through the file on the device and compare the largest output with its label.

    inputs  (images, C, H, W) or (images, D)  preprocessed
    labels  (images,)                         0 to classes - 1

    Raises ModelError where the file takes or gives something else, DeviceError where it does not run there.
    """
    fitting, layout = _fit(inputs, _only_input(session, settings, file), file)
    start = time.monotonic()
    logits = predict_on_device(session, settings, file, fitting)
    seconds = time.monotonic() - start
    if logits.shape[1] != classes:
        raise ModelError(f"{file.name} gives {logits.shape[1]} numbers an image, the data has {classes} classes")
    correct = int(np.sum(logits.argmax(1) == labels))
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    return Accuracy(correct, len(labels), float(interval.low), float(interval.high), seconds / len(labels), layout)


def _only_input(session: Session, settings: MeasureSettings, file: Path) -> tuple[int, ...]:
    """Shape of the one input the file takes."""
    pushed = push_patiently(session, file)

    def load(client: ProbeClient, deadline: Deadline) -> tuple[TensorSpec, ...]:
        client.hello([], deadline)
        return client.load("model", pushed, deadline)

    try:
        specs = in_fresh_process(session, settings, load, timeout_s=_TIMEOUT_S)
    except ChannelError as error:
        raise DeviceError(
            f"{file.name} does not run on {session.spec.name}: {error.message}", error.hint, retryable=error.retryable
        ) from error
    if len(specs) != 1:
        raise ModelError(f"{file.name} takes {len(specs)} inputs, and images are only one")
    return tuple(side or 1 for side in specs[0].shape)


def _fit(inputs: NDArray[np.float32], shape: tuple[int, ...], file: Path) -> tuple[NDArray[np.float32], str]:
    """The images as the file takes them, one at a time; channels go last only where nothing else fits."""
    one, wanted = inputs.shape[1:], shape[1:]
    flat = inputs[0].size == np.prod(shape, dtype=np.int64) and len(one) != len(wanted)
    if shape[:1] == (1,) and (one == wanted or flat):
        return inputs, "as they come"
    last: Any = np.moveaxis(inputs, 1, -1)
    if shape[:1] == (1,) and last.shape[1:] == wanted:
        return np.ascontiguousarray(last), "NHWC"
    takes, has = ("x".join(map(str, sides)) for sides in (shape, one))
    raise ModelError(f"{file.name} takes {takes}, the data has images of {has}", "give --data the file was made for")
