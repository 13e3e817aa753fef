"""The channels of a network, by their labels, and who makes them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import nn

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.core.errors import SurgeryError
from edgeprune.core.inputs import Shape
from edgeprune.core.text import shorten
from edgeprune.models.inputs import cast, made
from edgeprune.pruning.axes.calls import padded_channels
from edgeprune.pruning.axes.follow import label
from edgeprune.pruning.axes.labels import RIGID, Labelled, Numbers, Side, among
from edgeprune.pruning.cost import input_dtype, neurons_of


@dataclass(frozen=True, slots=True)
class Graph:
    """The labels of a network, and its groups: channels that are made and read in the same places."""

    labelled: Labelled
    #: Numbers of every group's channels, in the order in which the layer that it is called by makes them.
    groups: Mapping[str, tuple[int, ...]]
    #: Where weights outside of any layer make channels.
    bare: tuple[Side, ...] = ()

    def channels(self, name: str) -> tuple[int, ...]:
        """Numbers of a group's channels; raises SurgeryError where the network has no such group."""
        if name not in self.groups:
            raise SurgeryError(
                f"the network has no channels '{shorten(name, 60)}'", "the plan is another network's, or damaged"
            )
        return self.groups[name]

    def bare_rows_gone(self, network: nn.Module) -> int:
        """Rows that weights outside of any layer have lost, of those that they had when they were followed."""
        rows = (
            (len(self.labelled.axes[side]), network.get_parameter(side.tensor).shape[side.axis]) for side in self.bare
        )
        return sum(before - now for before, now in rows)

    def gone(self, plan: PruningPlan) -> Numbers:
        """Numbers of the channels that surgery takes out for `plan`, in ascending order.

        Of a group of which nothing is kept, or that is then for nobody, one channel stays: no tensor may be empty.
        """
        kept = {**plan.kept, **dict.fromkeys(self.for_nobody(_empty(plan)), (0,))}
        lost = [
            np.delete(np.array(self.channels(name), np.int64), left) for name, left in kept.items() if name != INPUTS
        ]
        return np.sort(np.concatenate([np.empty(0, np.int64), *lost]))

    def for_nobody(self, names: Sequence[str]) -> list[str]:
        """The groups `names`, of which nothing is left, and those that are then read for nobody.

        Those are read by layers alone that make nothing but channels of such groups: what comes before the inside of a
        branch, and what gates it.
        """
        if not names:
            return []
        makes, reads = dict[str, set[int]](), dict[str, set[int]]()
        for side, roles in self.labelled.roles.items():
            for role, found in (("makes", makes), ("reads", reads)):
                if role in roles and side in self.labelled.axes:
                    found.setdefault(side.layer, set()).update(self.labelled.axes[side].tolist())
        dead = [*names]
        while True:
            lost = {channel for name in dead for channel in self.channels(name)}
            silent = {layer for layer, made in makes.items() if made <= lost}
            for name in self.groups.keys() - {*dead}:
                readers = {layer for layer, read in reads.items() if not read.isdisjoint(self.groups[name])}
                if readers and readers <= silent:
                    dead.append(name)
            if len(lost) == sum(len(self.groups[name]) for name in dead):
                return dead

    def silenced(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Layers that make only channels `for_nobody` where nothing is left of the groups `names`, and those of the
        others that read only such."""
        numbers = np.sort(np.array([c for name in self.for_nobody(names) for c in self.channels(name)], np.int64))
        weights = [side for side in self.labelled.axes if side.tensor.endswith(".weight") and side.axis < 2]
        silent = [side for side in weights if len(numbers) and among(self.labelled.axes[side], numbers).all()]
        makers = [side.layer for side in silent if side.axis == 0]
        return makers, [side.layer for side in silent if side.axis == 1 and side.layer not in makers]

    def stilled(self, plan: PruningPlan) -> tuple[list[str], list[str]]:
        """What is `silenced` by the groups of which `plan` keeps nothing."""
        return self.silenced(_empty(plan))

    def padded(self, plan: PruningPlan) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """See `padded_channels`."""
        return padded_channels(self.labelled.calls, self.gone(plan))

    def left(self, side: Side, size: int, gone: Numbers) -> list[int]:
        """Places of an axis of `size` that are left once the channels `gone` are taken out."""
        if (places := self.labelled.axes.get(side)) is None:
            return list(range(size))
        return np.flatnonzero(~among(places, gone)).tolist()


def _empty(plan: PruningPlan) -> list[str]:
    return [name for name, kept in plan.kept.items() if name != INPUTS and not kept]


#: Of a network of which nothing goes.
NO_GROUPS = Graph(
    Labelled(
        axes={}, roles={}, held={}, channels=np.empty(0, np.int64), asked=(), looks_at_all=False,
        contracted=frozenset(), calls=(), heads=frozenset(),
    ),
    {},
)  # fmt: skip


def follow(network: nn.Module, shape: Shape) -> Graph:
    """Label a network, and find its groups. Raises whatever the network's forward raises."""
    inputs = cast(made(shape, 2, partial(torch.rand, generator=torch.Generator().manual_seed(0))), input_dtype(network))
    labelled = label(network, inputs)
    makers = [side for side, roles in labelled.roles.items() if "makes" in roles and side in labelled.axes]
    # Values that are never trained are no neurons: a fixed filter that blurs, a table of sines.
    trained = {name for name, _ in network.named_parameters()}
    bare = tuple(
        side for side in makers if side.tensor in trained and neurons_of(network.get_submodule(side.layer)) is None
    )
    return Graph(labelled, _groups(labelled, makers), bare)


def _groups(labelled: Labelled, makers: Sequence[Side]) -> dict[str, tuple[int, ...]]:
    """Channels that lie in the same tensors, by the first maker that makes no others, or by the first of all.

    A stream that grows by padding has several: what it had from the beginning, and what came with each stage.
    """
    made = {side: dict.fromkeys(each for each in labelled.axes[side].tolist() if each != RIGID) for side in makers}
    lies: dict[int, list[Side]] = {}
    for side, axis in labelled.axes.items():
        for channel in np.unique(axis).tolist():
            lies.setdefault(channel, []).append(side)
    alike: dict[tuple[tuple[Side, ...], tuple[Side, ...]], dict[int, None]] = {}
    for side in makers:
        for channel in made[side]:
            own = tuple(each for each in makers if channel in made[each])
            alike.setdefault((own, tuple(lies[channel])), {})[channel] = None
    # Channels that nothing reads leave their layer's name to those that are read.
    reading = {side for side, roles in labelled.roles.items() if "reads" in roles}
    alike = dict(sorted(alike.items(), key=lambda item: reading.isdisjoint(item[0][1])))
    groups_of = Counter(layer for own, _ in alike for layer in {side.layer for side in own})
    groups: dict[str, tuple[int, ...]] = {}
    for (own, _), channels in alike.items():
        only = [side for side in own if made[side].keys() == channels.keys()]
        for side in [*only, *own]:
            name = side.layer if groups_of[side.layer] == 1 and side.layer else side.tensor.removesuffix(".weight")
            if name not in groups:
                break
        else:
            # Others of the same layer, which lie elsewhere.
            name = next(each for number in count(2) if (each := f"{name}#{number}") not in groups)
        groups[name] = tuple(channel for channel in made[side] if channel in channels)
    return groups
