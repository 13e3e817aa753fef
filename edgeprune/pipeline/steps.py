"""The steps in which a network is pruned and tuned: the widths after each, and what each gets of epochs or minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgeprune.core.design import INPUTS
from edgeprune.pruning.structure import Structure
from edgeprune.training.regime import Regime

#: One part in so many of the epochs or minutes is for all steps before the last, in which what ships is tuned.
EARLY = 4


def way(structure: Structure, widths: Mapping[str, int], iterations: int, regime: Regime) -> list[dict[str, int]]:
    """The widths after every step; the last are `widths`.

    Input features go in one more step at the end, unless there are only as many epochs as `iterations`.
    """
    inputs_last = regime.epochs is None or regime.epochs > iterations
    others = {name: width for name, width in widths.items() if name != INPUTS}
    apart = inputs_last and bool(others) and widths.get(INPUTS, structure.inputs) < structure.inputs
    steps = [_between(structure, others if apart else widths, step / iterations) for step in range(1, iterations + 1)]
    return [*steps, dict(widths)] if apart else steps


def _between(structure: Structure, widths: Mapping[str, int], share: float) -> dict[str, int]:
    """Allowed widths when a `share` of the way is gone; the way is the same factor in each step."""
    between = {}
    for group in structure.groups:
        if group.name in widths:
            target = widths[group.name]
            # What goes as a whole goes in the last step.
            width = group.channels * (max(1, target) / group.channels) ** share
            between[group.name] = target if share == 1 else max(target, group.floor, group.snap(width))
    return between


def epochs_of(epochs: float, step: int, steps: int) -> float:
    """Epochs of one step, whole ones of all but the last; all steps together have `epochs`."""
    early = max(1, epochs // (EARLY * (steps - 1))) if steps > 1 else 0
    return epochs - early * (steps - 1) if step == steps else early


def share_of(step: int, steps: int) -> float:
    """The share of the time still left that `step` may take; all but the last have one part in `EARLY` together."""
    early = 1 / EARLY / (steps - 1) if steps > 1 else 0.0
    return 1.0 if step == steps else early / (1 - early * (step - 1))


def shares(regime: Regime, share: float, finalists: int, *, goes_on: bool) -> tuple[Regime, Regime]:
    """How each finalist and the winner are tuned: with a `share` of what the winner gets, and with that.

    What the winner had as a finalist is part of it. Epochs are the winner's own, minutes are for all: where it
    `goes_on`, its time as a finalist is not spent twice.
    """
    if regime.minutes is not None:
        minutes = regime.minutes / (1 + share * (finalists - goes_on))
        return regime.of(minutes * share), regime.of(minutes)
    # Whole ones, or half of one: an epoch of a convolutional network may take minutes.
    return regime.of(math.floor(regime.amount * share) or 0.5), regime
