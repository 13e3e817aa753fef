"""How answers that name a class are judged, and what guessing would be given by the same measure."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.distributions import binomial_beyond

#: The share of right answers, or the mean of that share over the classes.
ClassMetric = Literal["accuracy", "balanced-accuracy"]
Classes = NDArray[np.int64]

#: How often guessing would be taken for more than that.
ALPHA = 0.05
#: Whoever gets less than this share of the way from guessing to all right guesses, however many images say so: random
#: weights are often a few points off.
WORTH = 0.05
#: Shuffled answers that balanced accuracy is compared with.
_DRAWS = 1000


def recall_of(labels: Classes, answers: Classes, classes: int) -> tuple[float | None, ...]:
    """The share of each class that is answered right; None for one that no example is of."""
    present = np.unique(labels)
    found = dict(zip(present.tolist(), _recalls(labels, answers).tolist(), strict=True))
    return tuple(found.get(label) for label in range(classes))


def score_of(metric: ClassMetric, labels: Classes, answers: Classes) -> float:
    """Share of right answers (N,), or the mean over the classes there are of the share that is right of each."""
    if metric == "accuracy":
        return float(np.mean(answers == labels))
    return float(_recalls(labels, answers).mean())


def majority(labels: Classes) -> tuple[int, float]:
    """The most frequent class, and its share: what a network gets that always answers it."""
    values, counts = np.unique(labels, return_counts=True)
    most = int(counts.argmax())
    return int(values[most]), float(counts[most] / len(labels))


def chance_level(metric: ClassMetric, labels: Classes, answers: Classes | None = None) -> float:
    """The score up to which `answers` (N,) are not told from guessing; None: of whoever knows how frequent classes are.

    Accuracy is compared with the most frequent class's share: what always answering it exceeds with a probability of
    5 % (binomial). Balanced accuracy is compared with the same answers given to other images: what 5 % of 1,000
    shufflings exceed. Where so few images, or so few of a class, cannot tell even perfect answers from guessing, it is
    what guessing gets on average. `WORTH` comes on top of that average at least.

    Example: 144 images of 10 equal classes -> 0.145; 1,000 images of which 98 % are of one class -> 0.987.
    """
    if metric == "accuracy":
        mean = majority(labels)[1]
        beyond = binomial_beyond(ALPHA, len(labels), mean) / len(labels)
    else:
        mean = 1 / len(np.unique(labels))
        beyond = _shuffled(labels, labels if answers is None else answers)
    least = mean + WORTH * (1 - mean)
    # Sums of shares miss 1 by a rounding error.
    return max(least, beyond) if beyond < 1 - 1e-9 else least


def telling_images(metric: ClassMetric, labels: Classes) -> float:
    """How many images with independent answers a score on `labels` (N,) is worth: N, or fewer where a class is rare.

    The variance of a score p is p (1 - p) over this number, were every class's recall p: balanced accuracy is a mean of
    C recalls, of variance sum_c 1 / (C^2 n_c). Example: 90 images of one class, 10 of another -> 36.
    """
    if metric == "accuracy":
        return float(len(labels))
    counts = np.unique(labels, return_counts=True)[1]
    return float(len(counts) ** 2 / (1 / counts).sum())


def score_interval(metric: ClassMetric, labels: Classes, score: float) -> tuple[float, float]:
    """Where the true score lies with 95 % confidence, given `score` on `labels` (N,): Wilson's interval.

    Of balanced accuracy it is that of as many images as these are worth (see `telling_images`).
    """
    images, z = telling_images(metric, labels), 1.96
    centre = (score + z * z / (2 * images)) / (1 + z * z / images)
    reach = z * math.sqrt(score * (1 - score) / images + z * z / (4 * images**2)) / (1 + z * z / images)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _recalls(labels: Classes, answers: Classes) -> NDArray[np.float64]:
    """Of every class that `labels` hold, in order, the share that is answered right."""
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    recalls: NDArray[np.float64] = np.bincount(places, answers == labels, len(counts)) / counts
    return recalls


def _shuffled(labels: Classes, answers: Classes) -> float:
    """The balanced accuracy that `ALPHA` of all ways to give these answers to other images exceed."""
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1 / (len(counts) * counts[places])
    rng = np.random.default_rng(0)
    draws = [float(weights[rng.permutation(answers) == labels].sum()) for _ in range(_DRAWS)]
    # A score counts as guessing when it is no better than what chance gives that often.
    return float(np.quantile(draws, 1 - ALPHA, method="higher"))
