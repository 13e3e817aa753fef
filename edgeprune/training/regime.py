"""How a network is trained, whatever it learns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edgeprune.core.errors import UsageError
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.place import PLAIN, Place

#: AdamW's weight decay, of weights only. A pruned network is tuned with more: Fashion-MNIST at a fifth of its neurons
#: loses 2.0 points instead of 2.25 so (docs/decisions/0009-inputs-last.md).
DECAY, FINETUNE_DECAY = 5e-4, 0.1

#: Which epoch's network is taken: the best on validation, or the last.
Taken = Literal["best", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """How a network is trained: for so many `epochs`, of which the last may be a part of one, or for so many `minutes`.

    Raises UsageError unless exactly one of `epochs` and `minutes` is given.
    """

    epochs: float | None = None
    minutes: float | None = None
    #: The peak of the one-cycle schedule.
    learning_rate: float
    batch_size: int
    #: Of the order of the images, of their changes, and of dropout.
    seed: int
    weight_decay: float = DECAY
    #: How training images are changed; None: not at all.
    augmentation: Augmentation | None = None
    place: Place = PLAIN
    taken: Taken = "best"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minutes is None):
            raise UsageError("training takes either epochs or minutes", "give exactly one of them")

    @property
    def amount(self) -> float:
        """Epochs or minutes, whichever is given."""
        return float(self.epochs or 0) if self.minutes is None else self.minutes

    def of(self, amount: float) -> Regime:
        """The same for another amount of epochs, or minutes."""
        return replace(self, epochs=amount) if self.minutes is None else replace(self, minutes=amount)
