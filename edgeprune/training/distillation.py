"""What a network learns from another one's answers beside the labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Distillation:
    """A teacher, and how much its answers count (Hinton et al. 2015).

    `temperature` (above 0) softens the answers of both, `share` in [0, 1] is their part in the loss: at 0 only the
    labels count, at 1 only the teacher. Whatever is trained with the same Distillation shares the answers it keeps.

    Where training images are changed, those of an epoch are the same again after so many `rounds`, so that a teacher
    which is slow to ask is asked about each once; None: always others. What an answer is the `task` says.
    """

    teacher: nn.Module
    temperature: float = 1.0
    share: float = 0.5
    rounds: int | None = None
    task: Task = CLASSIFICATION
    #: Who is asked for the teacher's answers.
    asked: Teacher = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", Teacher(self.teacher))

    def soften(self, answers: Tensor) -> Tensor:
        """The teacher's answers (N, ...) as they are learnt from: softened probabilities where there are classes."""
        return objective_of(self.task).soften(answers, self.temperature)

    def loss(self, output: Tensor, targets: Tensor, softened: Tensor) -> Tensor:
        """(1 - share) loss(output, targets) + share imitation(output, softened), a mean over the batch.

        The two parts' gradients are in proportion whatever the temperature.
        """
        objective = objective_of(self.task)
        soft = objective.imitation(output, softened, self.temperature)
        return (1 - self.share) * objective.loss(output, targets) + self.share * soft
