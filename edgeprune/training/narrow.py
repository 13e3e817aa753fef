"""A plan becomes a network: surgery, repair, statistics. Everybody who needs the network of a plan comes here."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.models.inputs import Inputs
from edgeprune.pruning.structure import Criterion, Structure
from edgeprune.pruning.surgery import prune
from edgeprune.training.batches import Batches
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.recalibration import recalibrate

#: Training images that batch-norm statistics are taken from: of a network that is fine-tuned, and of a candidate of the
#: search, which is only compared with others.
STATISTICS_IMAGES, CANDIDATE_IMAGES = 2000, 500


def narrow(
    criterion: Criterion,
    structure: Structure,
    plan: PruningPlan,
    train_set: Batches,
    *,
    images: int = STATISTICS_IMAGES,
    check: Inputs | None = None,
    place: Place = PLAIN,
) -> nn.Module:
    """The network of `plan`, in evaluation mode: channels removed for real, their readers repaired by the criterion,
    and batch-norm statistics computed anew over the first `images` of `train_set`.

    Pruning changes what a layer passes on, and the unpruned network's statistics no longer fit. With `check`, inputs
    (N, *shape), it is compared before that with the full-size masked network: SurgeryError where they differ by more
    than 1e-5. A network without batch norm costs nothing more than surgery.
    """
    network = prune(criterion, structure, plan, check=check is not None, inputs=check)
    recalibrate(network, _alike(train_set, images), place)
    return network


def _alike(train_set: Batches, images: int) -> Iterable[Inputs]:
    """Inputs in batches of one size but for the last; batch norm cannot use a single image."""
    size = min(500, train_set.together)
    return (x for x, _ in train_set.ordered(size, images) if len(x) > 1)
