"""What a search knows of a network before it has tried a plan: how much the answers change when one group is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from edgeprune.core.progress import Progress
from edgeprune.pruning.structure import Criterion, Structure
from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.batches import Batches
from edgeprune.training.fit import predict
from edgeprune.training.narrow import narrow
from edgeprune.training.place import Place

#: Training images that the answers are to, and that batch-norm statistics are taken from.
IMAGES = 300
#: Sparsities that every group is cut to, as near as its widths allow, beside its floor.
_CUTS = (0.25, 0.5, 0.75, 1.0)


def divergences(
    criterion: Criterion,
    structure: Structure,
    train_set: Batches,
    place: Place,
    progress: Progress,
    images: int = IMAGES,
    task: Task = CLASSIFICATION,
) -> dict[str, tuple[float, ...]]:
    """For each group, at width w: what the answers lose when only that group is cut to w, (channels + 1,).

    The mean divergence from the unpruned network's answers (KL where the `task`'s are distributions), over that of the
    group which loses most. Networks are
    made as candidates are (`narrow`: readers refitted, statistics of their own), and not tuned. A few widths of each
    group are measured; in between the root of the divergence is taken to be linear, and nothing is said to be lost by
    going wider. Over plans that cut several groups divergences nearly add up: their sum orders plans as their scores
    do (docs/decisions/0014-what-a-group-is-worth.md).
    """
    whole: dict[str, int] = {group.name: group.channels for group in structure.groups}
    # In the usual place: what a search sees must be the same wherever it trains.
    here = replace(place, device="cpu", precision="float32")

    def answers(widths: dict[str, int]) -> Tensor:
        network = narrow(criterion, structure, criterion.plan(widths), train_set, images=images, place=here)
        return predict(network, train_set, images, here)

    points = {
        group.name: sorted({group.floor, *(group.snap((1 - cut) * group.channels) for cut in _CUTS)} - {group.channels})
        for group in structure.groups
    }
    roots: dict[str, np.ndarray] = {}
    with progress.bar("cutting one group at a time", sum(map(len, points.values()))) as bar:
        # With statistics of the same images: what these change is no fault of a cut.
        unpruned = answers(whole)
        for group in structure.groups:
            found = [0.0]
            for width in reversed(points[group.name]):
                lost = objective_of(task).divergence(answers({**whole, group.name: width}), unpruned)
                found.append(max(found[-1], max(lost, 0.0) ** 0.5))
                bar.advance()
            widths = [*points[group.name], group.channels]
            roots[group.name] = np.interp(np.arange(group.channels + 1), widths, found[::-1])
    most = max(float(each.max()) for each in roots.values()) or 1.0
    return {name: tuple(((each / most) ** 2).tolist()) for name, each in roots.items()}
