"""Whether weights that came trained may have seen the validation images, which come from the training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact
from torch import nn

from edgeprune.training.batches import Batches
from edgeprune.training.fit import predict

#: How seldom chance alone may make images that were trained on look as if they were not.
_LEVEL = 0.01
#: Training images that are asked about, where fewer than these validate: few images tell little.
_LEAST = 2000


@dataclass(frozen=True, slots=True)
class Familiar:
    """How well a network knows images of either kind: the share that it answers right.

    `told_apart`: it knows training images better than validation images, so it was not trained on these.
    """

    validation: float
    training: float
    told_apart: bool


def how_familiar(network: nn.Module, train_set: Batches, validation: Batches) -> Familiar:
    """Compare the shares by Fisher's exact test, one-sided."""
    new = _right(network, validation, len(validation))
    known = _right(network, train_set, min(len(train_set), max(_LEAST, len(validation))))
    counts = [[np.count_nonzero(right), np.count_nonzero(~right)] for right in (new, known)]
    chance = fisher_exact(counts, alternative="less").pvalue
    return Familiar(float(new.mean()), float(known.mean()), bool(chance < _LEVEL))


def _right(network: nn.Module, batches: Batches, count: int) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = (predict(network, batches, count).argmax(1) == batches.y[:count]).numpy()
    return right
