"""Which input scaling a trained network was made for: it is found by trying those that people use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgeprune.core.inputs import plain_shape
from edgeprune.core.progress import Progress
from edgeprune.core.userfile import is_user_function
from edgeprune.data.dataset import Dataset, EachInput, Preprocessing, Scaled
from edgeprune.data.preprocessing import describe, resolve, unscaled, write_numbers
from edgeprune.data.split import IMAGENET_MEAN, IMAGENET_STD, choose_preprocessing, moments
from edgeprune.pipeline.config import RunConfig
from edgeprune.tasks.metrics import Answers, Merits, Targets, Yardstick
from edgeprune.tasks.task import Task
from edgeprune.training.batches import Batches
from edgeprune.training.fit import predict

#: Validation images that scalings are compared on; they are shuffled.
IMAGES = 1000
#: Standard errors by which one scaling must beat another before it is taken for better: once in a thousand by luck.
SIGMAS = 3.0

Source = Literal["data", "entry", "option", "weights"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One scaling: its `name` is what --preprocessing takes, its `score` a share by the run's metric."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """How inputs are scaled, and why.

    `source`: worked out from the `data`; an `entry` that came with them; the `option`; or what trained `weights` fit.
    `tried` holds what was compared on validation images, the data's own first; empty where nothing was. `name` is what
    --preprocessing takes for it.
    """

    preprocessing: Scaled
    source: Source
    tried: tuple[Tried, ...] = ()
    name: str = "data"


def settle_scaling(
    config: RunConfig, stored: Scaling | None, network: nn.Module, dataset: Dataset, progress: Progress, task: Task
) -> tuple[Scaling, bool]:
    """How inputs are scaled, and whether `network` is trained already.

    `network` holds the user's weights where there are some. A network that the user's own function returned counts as
    trained where it gets at least half-way from guessing to all right. `stored` is what a resumed run began with, and
    keeps.

    Raises UsageError for a --preprocessing that does not fit the data.
    """
    trained = config.weights is not None
    settled = stored or _own(config, dataset)
    tries = stored is None and config.preprocessing == "auto" and (trained or is_user_function(config.model))
    if tries or (not trained and is_user_function(config.model)):
        names = scalings(dataset) if tries else {config.preprocessing: settled.preprocessing}
        compared = compare(network, dataset, names, task)
        trained = trained or max(one.score for one in compared) >= halfway(task, _targets(dataset))
        if trained and tries:
            settled = _fitting(settled, names, compared, dataset, task, progress)
    progress.say(f"inputs: {describe(settled.preprocessing)}, {WHY[settled.source]}")
    return settled, trained


WHY: dict[Source, str] = {
    "data": "worked out from the data",
    "entry": "as the data say",
    "option": "as --preprocessing says",
    "weights": "which the weights fit",
}


def scalings(dataset: Dataset) -> dict[str, Scaled]:
    """What people train with, by what to give to --preprocessing; the data's own first.

    | inputs | tried |
    |---|---|
    | all | the data's own; none |
    | bytes, and floats from 0 up that look like pictures | also [0, 1], [-1, 1], ImageNet's constants (colour) |
    | the same | also mean and standard deviation of the training set, of each channel and of all values |

    Floats look like pictures where they are (N, C, H, W); their white is 1, 255 or their largest value. Of several
    inputs only their own and none are tried, for all at once.
    """
    if isinstance(dataset.preprocessing, EachInput):
        return dict.fromkeys(("data",), dataset.preprocessing) | _none_of(dataset)
    x, features, unit = dataset.train.x, plain_shape(dataset.input_shape)[0], dataset.unit
    found: dict[str, Scaled] = {"data": dataset.preprocessing, "none": unscaled(features)}
    extra: list[Preprocessing] = []
    if x.min() >= 0 and (x.dtype == np.uint8 or x.ndim == 4):
        largest = float(x.max()) * unit
        white = 1.0 if largest <= 1 else 255.0 if 128 < largest <= 255 else largest
        extra.append(_even(unit, 0.0, white, features))
        extra.append(_even(unit, white / 2, white / 2, features))
        if x.ndim == 4 and features == 3:
            mean, std = (tuple(white * value for value in values) for values in (IMAGENET_MEAN, IMAGENET_STD))
            extra.append(Preprocessing(unit, mean, std))
    means, stds = moments(x)
    spread = float(np.sqrt((stds**2 + (means - means.mean()) ** 2).mean()))
    extra.append(_even(unit, float(means.mean()) * unit, spread * unit, features))
    if x.ndim == 4:
        # Through 1/255 or 1, so that bytes get their own moments, not ImageNet's.
        extra.append(choose_preprocessing(x, unit))
    for one in extra:
        rounded = resolve(write_numbers(one, unit), dataset)
        assert isinstance(rounded, Preprocessing)
        name = "unit" if rounded == resolve("unit", dataset) else write_numbers(one, unit)
        if not any(_alike(rounded, other) for other in found.values() if isinstance(other, Preprocessing)):
            found[name] = rounded
    return found


def _none_of(dataset: Dataset) -> dict[str, Scaled]:
    """No scaling of several inputs; nothing where their own is none."""
    none = resolve("none", dataset)
    return {} if none == dataset.preprocessing else {"none": none}


@dataclass(frozen=True, slots=True)
class Compared:
    """What one scaling gave on the validation images that are looked at: `answers` (N, ...), and their quality."""

    name: str
    score: float
    answers: Answers
    merits: Merits
    #: Whether the answers are not told from guessing.
    guesses: bool


def compare(
    network: nn.Module, dataset: Dataset, names: Mapping[str, Scaled], task: Task, *, reverse: bool = False
) -> list[Compared]:
    """Score the network on the first validation images under each scaling; `reverse`: channels in reverse order."""
    batches = Batches(dataset.validation, dataset.preprocessing)
    if reverse:
        batches = batches.reversed(IMAGES)
    targets, metric = _targets(dataset), task.metric
    found = []
    for name, preprocessing in names.items():
        answers = predict(network, batches.scaled(preprocessing), IMAGES).numpy()
        score = metric.quality(metric.value(answers, targets), targets)
        guesses = score <= metric.chance(targets, answers)
        found.append(Compared(name, score, answers, metric.merits(answers, targets), guesses))
    return found


def better(one: Compared, other: Compared) -> bool:
    """Whether answers `one` are better than `other` to the same images, by more than luck.

    A test of signs, as McNemar's: every image counts as much as the metric lets it, and the sum of the differences is
    compared with what it would be if each might as well have the other sign.
    """
    gains = one.merits - other.merits
    return float(gains.sum()) > SIGMAS * float(np.sqrt((gains**2).sum()))


def equals(compared: list[Compared], targets: Targets, task: Task) -> list[Compared]:
    """Those that the best of them does not beat by more than luck, in their order.

    What guesses is beaten by what gets at least half-way from guessing to all right, also where a rare class has too
    few images for the test of signs.
    """
    best = max(compared, key=lambda one: one.score)
    sure = best.score >= halfway(task, targets) and not best.guesses
    return [one for one in compared if not better(best, one) and not (sure and one.guesses)]


def halfway(task: Task, targets: Targets) -> float:
    """What trained weights get at least: half-way from guessing to all right classes, else more than guessing."""
    chance = task.metric.chance(targets)
    # An error that is half of a guess may be as good as it gets.
    return (chance + 1) / 2 if task.metric.of_classes else chance


def _fitting(
    own: Scaling,
    names: Mapping[str, Scaled],
    compared: list[Compared],
    dataset: Dataset,
    task: Task,
    progress: Progress,
) -> Scaling:
    """The scaling that trained weights fit, said in one line with all figures."""
    targets = _targets(dataset)
    best, shown = max(compared, key=lambda one: one.score), Yardstick.on(task.metric, targets).show
    equal = equals(compared, targets, task)
    # The data's own comes first: where several fit equally, it is that.
    chosen = equal[0]
    tried = tuple(Tried(one.name, one.score) for one in compared)
    figures = ", ".join(f"{one.name} {shown(one.score)}" for one in compared)
    if best.score <= task.metric.chance(targets):
        chosen = compared[0]
        verdict = "the weights fit none of these, so the data's own is kept"
    elif len(equal) == len(compared):
        verdict = "the weights fit all of these equally, so the data's own is kept"
    elif chosen is compared[0]:
        others = [one.name for one in equal if one is not chosen]
        also = f", and {' and '.join(others)} as well" if others else ""
        verdict = f"the weights fit the data's own{also}"
    else:
        others = [one.name for one in equal if one is not chosen]
        also = f" ({' and '.join(others)} as well)" if others else ""
        verdict = f"the weights fit {chosen.name}{also}, which is taken instead of the data's own"
    what = "right" if task.metric.name == "accuracy" else task.metric.title
    progress.say(
        f"input scaling tried on {len(targets)} validation images, {what}: {figures}; {verdict}; "
        f"--preprocessing decides otherwise"
    )
    if chosen is compared[0]:
        return replace(own, tried=tried)
    return Scaling(names[chosen.name], "weights", tried, chosen.name)


def _own(config: RunConfig, dataset: Dataset) -> Scaling:
    if config.preprocessing in ("auto", "data"):
        return Scaling(dataset.preprocessing, "entry" if dataset.carried else "data")
    return Scaling(resolve(config.preprocessing, dataset), "option", name=config.preprocessing)


def _targets(dataset: Dataset) -> Targets:
    return dataset.validation.y[:IMAGES]


def _even(unit: float, mean: float, std: float, features: int) -> Preprocessing:
    return Preprocessing(unit, (mean,) * features, (std if std > 0 else 1.0,) * features)


def _alike(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether inputs come out the same, but for rounding."""

    def slopes(given: Preprocessing) -> Iterable[NDArray[np.float64]]:
        std = np.array(given.std)
        return given.scale / std, np.array(given.mean) / std

    return all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(slopes(one), slopes(other), strict=True))
