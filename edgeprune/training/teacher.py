"""The answers of the network that others learn from: asked for cheaply, and kept for whoever needs them again."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from edgeprune.models.inputs import Inputs, ask, one_after_the_other
from edgeprune.pruning.folding import find_batchnorm_pairs, fold_batchnorm
from edgeprune.pruning.kinds import convolutional
from edgeprune.training.batches import Batches
from edgeprune.training.place import PLAIN, Place

#: Bytes of answers that are kept for whoever sees the same images again: an epoch of 50,000 images takes 2 MB for each
#: 10 classes.
KEPT = 200_000_000
#: Images on which a folded teacher is compared with the one it was made of, and the largest difference allowed,
#: relative to the answers' scale.
_IMAGES, _NEAR = 16, 1e-4


class Teacher:
    """Answers of `network`, in evaluation mode and without gradients, at whatever place.

    A network that convolves is asked with its batch norms folded into its convolutions, which changes rounding only;
    where it cannot be folded, or then answers otherwise, it is asked as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._there: tuple[Place, nn.Module] | None = None
        self._known: dict[Hashable, Tensor] = {}
        self._chunks: dict[Hashable, list[Tensor]] = {}
        self._kept = 0

    def __call__(self, x: Inputs, place: Place) -> Tensor:
        """Answers (N, ...) of inputs that are in `place`."""
        with torch.no_grad():
            if self._there is None or self._there[0] != place:
                self._there = place, self._made(x, place)
            return place.forward(self._there[1].eval(), x)

    def known(self, train_set: Batches, place: Place) -> Tensor:
        """Answers (N, ...) of all images as they are stored; asked for once, and kept."""
        key = (train_set, place)
        if key not in self._known:
            parts = (self(place.inputs(x), place) for x, _ in train_set.ordered(min(500, train_set.together)))
            self._known[key] = one_after_the_other(parts, len(train_set))
        return self._known[key]

    def chunk(self, key: Hashable, number: int, x: Inputs, place: Place) -> Tensor:
        """Answers (N, ...) of the inputs `x`, the chunk `number` of those that `key` stands for, from 0 on.

        They are kept up to `KEPT` bytes: networks that are trained with the same seed see the same images in the same
        order, changed alike.
        """
        kept = self._chunks.setdefault(key, [])
        if number < len(kept):
            return kept[number]
        answers = self(x, place)
        size = answers.numel() * answers.element_size()
        if number == len(kept) and self._kept + size <= KEPT:
            kept.append(answers)
            self._kept += size
        return answers

    def _made(self, x: Inputs, place: Place) -> nn.Module:
        network = self._network.eval()
        there = network if place == PLAIN else place.copy(network)
        if not convolutional(network):
            return there
        try:
            pairs = find_batchnorm_pairs(network, x[:_IMAGES])
            folded = place.copy(fold_batchnorm(network, pairs))
            found, wanted = ask(folded, x[:_IMAGES]), ask(there, x[:_IMAGES])
        except Exception:  # noqa: BLE001 - a forward that looks into its batch norms may raise anything without them
            return there
        near = float((found - wanted).abs().max()) <= _NEAR * max(1.0, float(wanted.abs().max()))
        return folded if pairs and near else there
