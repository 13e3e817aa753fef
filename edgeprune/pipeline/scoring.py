"""What a plan is worth on the host: its network's score on validation images, and the neurons that are left."""

from __future__ import annotations

from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.pruning.structure import Criterion, Structure
from edgeprune.training.brief import BriefTuning
from edgeprune.training.fit import score
from edgeprune.training.narrow import CANDIDATE_IMAGES, narrow
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.problem import Problem


class Scoring:
    """Narrows by a criterion, tunes for a moment where there is a `tuning`, scores on the first `images` of validation.

    `images` None: all of them. Batch-norm statistics are taken from training images. `place` is where the network
    runs; the `tuning` has its own.
    """

    def __init__(
        self,
        network: nn.Module,
        structure: Structure,
        criterion: Criterion,
        problem: Problem,
        tuning: BriefTuning | None,
        images: int | None = None,
        place: Place = PLAIN,
    ) -> None:
        self._structure = structure
        self._criterion = criterion
        self._problem = problem
        self._tuning = tuning
        #: How many validation images are looked at; None: all.
        self.images = images
        self._place = place
        self._neurons = structure.neurons(network)

    @property
    def diverged(self) -> int:
        """Plans whose tuning came to NaN; they were scored untuned."""
        return 0 if self._tuning is None else self._tuning.diverged

    def network(self, plan: PruningPlan) -> nn.Module:
        """The network of a plan, not tuned."""
        images, place = CANDIDATE_IMAGES, self._place
        return narrow(self._criterion, self._structure, plan, self._problem.train, images=images, place=place)

    def __call__(self, pruned: nn.Module) -> tuple[float, float]:
        """The score (share) of the network of a plan once it is tuned, and its neuron compression rate."""
        tuned = pruned if self._tuning is None else self._tuning(pruned)
        problem = self._problem
        accuracy = score(tuned, problem.validation, self.images, task=problem.task, place=self._place)
        return accuracy, self._neurons / self._structure.neurons(pruned)
