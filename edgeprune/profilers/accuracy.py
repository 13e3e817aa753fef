"""How many images a model file classifies right on a device: `edgeprune validate`.

Files of others say little of what they take and give. What is decided here is told: `Accuracy.conventions`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.session import Session
from edgeprune.data.dataset import Dataset
from edgeprune.data.split import in_own_order
from edgeprune.profilers.answers import other_order
from edgeprune.profilers.foreign import Asked, ForeignFile, Tried
from edgeprune.profilers.records import Accuracy, ValidatedData, ValidatedOn


def accuracy_on_device(
    session: Session,
    settings: MeasureSettings,
    file: Path,
    dataset: Dataset,
    asked: Asked,
    progress: Progress,
    images: int | None = None,
) -> Accuracy:
    """Run the test images (the first `images`) through the file on the device and compare its answers with the labels.

    What the file does not tell and `asked` leaves open is tried on training images; test images choose nothing.

    Raises ModelError where the file takes or gives something else, DeviceError where it does not run there.
    """
    model = ForeignFile(session, settings, file, dataset, asked, progress)
    chosen, tried = model.choose()
    # A stream is nothing without its order.
    test = in_own_order(dataset.test) if asked.stream else dataset.test
    x, labels = test.x[:images], test.y[:images]
    start = time.monotonic()
    found, remarks = model.classes(x, chosen)
    seconds = time.monotonic() - start
    correct = int(np.sum(found == labels))
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    low, high = float(interval.low), float(interval.high)
    spec = session.spec
    return Accuracy(
        file=str(file),
        device=ValidatedOn(spec.name, spec.emulated),
        data=ValidatedData(dataset.name, dataset.fingerprint),
        correct=correct,
        images=len(labels),
        low=low,
        high=high,
        seconds_per_image=seconds / len(labels),
        layout=chosen.layout.name,
        preprocessing=chosen.name,
        input=model.port.name,
        output=model.reading.output,
        batch=chosen.layout.batch,
        conventions=(*model.told(chosen), *remarks),
        tried=tried,
        advice=_advice(found, labels, dataset, low, tried),
        accuracy=correct / len(labels),
    )


def _advice(
    found: NDArray[np.int64], labels: NDArray[np.int64], dataset: Dataset, low: float, tried: Sequence[Tried]
) -> tuple[str, ...]:
    """Of an outcome that is no better than answering the most frequent class: likely causes in order, what to type."""
    classes = len(dataset.classes)
    chance = float(np.bincount(labels, minlength=classes).max() / len(labels))
    if low > max(chance, 1 / classes):
        return ()
    lines = [f"no better than chance: the most frequent class alone is {100 * chance:.2f} % of the images"]
    if len(np.unique(found)) == 1:
        lines.append(
            "every image gets the same class, as with values on a wrong scale, or a file that was never trained"
        )
    share, order = other_order(found, labels, classes)
    # Some order always fits a little; half of the images and more do not come by chance.
    if len(labels) >= 10 * classes and share > max(0.5, chance + 0.2):
        shown = ", ".join(map(str, order[:20])) + (", ..." if classes > 20 else "")
        lines.append(
            f"with the classes in another order {100 * share:.2f} % would be right: the file's classes 0, 1, ... seem "
            f"to be the data's {shown}; name the data's classes in the file's order"
        )
    scaling = "--preprocessing MEAN,STD" if tried else "--preprocessing auto, none, unit or MEAN,STD"
    causes = [f"another scaling ({scaling})"]
    if dataset.input_shape[0] == 3:
        causes.append("another order of colours (BGR instead of RGB)")
    causes.append("another order of the classes")
    lines.append(f"likely causes, in order: {'; '.join(causes)}")
    return tuple(lines)
