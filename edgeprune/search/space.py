"""What is searched: the widths of all groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.core.design import Group

#: Channels left, by the name of the group.
Widths = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Space:
    """The groups whose widths are searched for, and the neurons of the whole network."""

    groups: tuple[Group, ...]
    neurons: int

    def ncr(self, widths: Widths) -> float:
        """Neurons of the original network over neurons left."""
        gone = sum((group.channels - widths[group.name]) * group.neurons_per_channel for group in self.groups)
        return self.neurons / (self.neurons - gone)
