"""What a network learns from another one's answers beside the labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Distillation:
    """A teacher, and how much its answers count (Hinton et al. 2015).

    `temperature` (above 0) softens the answers of both, `share` in [0, 1] is their part in the loss: at 0 only the
    labels count, at 1 only the teacher. Whatever is trained with the same Distillation shares the answers it keeps.

    Where training images are changed, those of an epoch are the same again after so many `rounds`, so that a teacher
    which is slow to ask is asked about each once; None: always others.
    """

    teacher: nn.Module
    temperature: float = 1.0
    share: float = 0.5
    rounds: int | None = None
    #: Who is asked for the teacher's answers.
    asked: Teacher = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", Teacher(self.teacher))

    def soften(self, logits: Tensor) -> Tensor:
        """The teacher's logits (N, classes) as softened probabilities."""
        return F.softmax(logits / self.temperature, 1)

    def loss(self, logits: Tensor, labels: Tensor, softened: Tensor) -> Tensor:
        """(1 - share) CE(logits, labels) + share T^2 CE(logits / T, softened), a mean over the batch.

        T^2 keeps the two parts' gradients in proportion whatever the temperature. Against the KL divergence the entropy
        of the teacher's answers is left in, which no weight of the network changes.
        """
        soft = F.cross_entropy(logits / self.temperature, softened) * self.temperature**2
        return (1 - self.share) * F.cross_entropy(logits, labels) + self.share * soft
