"""What a network learns from, and what for."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.tasks.metrics import Yardstick
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.batches import Batches


@dataclass(frozen=True, slots=True)
class Problem:
    """A learning problem: examples to learn from, others to judge by, and the task both are of."""

    train: Batches
    validation: Batches
    task: Task = CLASSIFICATION

    @property
    def yardstick(self) -> Yardstick:
        """What qualities on validation are in the metric's own terms."""
        return Yardstick.on(self.task.metric, self.validation.y.numpy())
