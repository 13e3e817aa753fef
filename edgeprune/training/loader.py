"""Batches to train on, one epoch after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from edgeprune.models.inputs import Inputs, mapped
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.regime import Regime


class Loader:
    """Batches of one epoch after the other; all that is not the network's own step is done for many at once.

    For a network that has `begun`, and was trained for so many epochs, images come in another order than it saw.
    """

    def __init__(
        self, train_set: Batches, regime: Regime, distillation: Distillation | None = None, begun: float = 0.0
    ) -> None:
        self._set = train_set
        self._regime = regime
        self._epoch = math.ceil(begun)
        self._generator = torch.Generator().manual_seed(seed_after(regime.seed, begun))
        self._distillation = distillation if distillation is not None and distillation.share > 0 else None
        # Images that never change get the same answers every time.
        self._known: Tensor | None = None
        if self._distillation is not None and regime.augmentation is None:
            self._known = self._distillation.soften(self._distillation.asked.known(train_set, regime.place))
        size = regime.batch_size
        #: Batches of an epoch; a last one of a single image is left out, since batch norm cannot use it.
        self.batches = len(train_set) // size + (len(train_set) % size > 1)

    def epoch(self) -> Iterator[tuple[Inputs, Tensor, Tensor | None]]:
        """Inputs, targets and the teacher's softened answers, in random order and in place."""
        regime, size, place = self._regime, self._regime.batch_size, self._regime.place
        rounds = self._distillation.rounds if self._distillation is not None else None
        if rounds is not None:
            self._generator.manual_seed(seed_after(regime.seed, self._epoch % rounds))
        self._epoch += 1
        # The generator's state tells this epoch's images from all others: their order, and how each is changed.
        key = (self._set, self._generator.get_state().numpy().tobytes(), size, regime.augmentation, place)
        order = torch.randperm(len(self._set), generator=self._generator)
        together = size * max(1, self._set.together // size)
        for number, index in enumerate(torch.split(order, together)):
            x, targets = mapped(self._set.inputs(index), place.moved), place.moved(self._set.y[index])
            # Only what an image looks like is changed.
            if regime.augmentation is not None and isinstance(x, Tensor):
                x = regime.augmentation.apply(x, self._generator, size)
            x = place.inputs(x)
            softened = None
            if self._known is not None:
                softened = self._known[place.moved(index)]
            elif self._distillation is not None:
                softened = self._distillation.soften(self._distillation.asked.chunk(key, number, x, place))
            for start in range(0, len(index), size):
                part = slice(start, start + size)
                if len(targets[part]) > 1:
                    yield x[part], targets[part], None if softened is None else softened[part]


def seed_after(seed: int, epochs: float) -> int:
    """The seed of a training that goes on after so many epochs."""
    return seed + round(1000 * epochs)
