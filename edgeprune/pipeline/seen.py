"""Whether weights that came trained may have seen the validation images, which come from the training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact, ttest_ind
from torch import nn

from edgeprune.tasks.metrics import Merits, Yardstick
from edgeprune.tasks.task import Task
from edgeprune.training.batches import Batches
from edgeprune.training.fit import predict
from edgeprune.training.problem import Problem

#: How seldom chance alone may make images that were trained on look as if they were not.
_LEVEL = 0.01
#: Training images that are asked about, where fewer than these validate: few images tell little.
_LEAST = 2000


@dataclass(frozen=True, slots=True)
class Familiar:
    """How well a network knows images of either kind, in words.

    `told_apart`: it knows training images better than validation images, so it was not trained on these.
    """

    said: str
    told_apart: bool


def how_familiar(network: nn.Module, problem: Problem) -> Familiar:
    """Compare the answers, one-sided: by Fisher's exact test where they are right or wrong, else by Welch's."""
    train_set, validation, task = problem.train, problem.validation, problem.task
    new, said_new = _asked(network, validation, len(validation), task)
    known, said_known = _asked(network, train_set, min(len(train_set), max(_LEAST, len(validation))), task)
    if task.metric.of_classes:
        counts = [[np.count_nonzero(right > 0), np.count_nonzero(right == 0)] for right in (new, known)]
        chance = fisher_exact(counts, alternative="less").pvalue
        shares = [100 * right / (right + wrong) for right, wrong in counts]
        said = f"{shares[0]:.2f} % of validation and {shares[1]:.2f} % of training images are right"
    else:
        chance = ttest_ind(new, known, equal_var=False, alternative="less").pvalue
        said = f"{task.metric.title} is {said_new} on validation and {said_known} on training images"
    return Familiar(said, bool(chance < _LEVEL))


def _asked(network: nn.Module, batches: Batches, count: int, task: Task) -> tuple[Merits, str]:
    answers, targets = predict(network, batches, count).numpy(), batches.y[:count].numpy()
    metric = task.metric
    return metric.merits(answers, targets), Yardstick.on(metric, targets).show(
        metric.quality(metric.value(answers, targets), targets)
    )
