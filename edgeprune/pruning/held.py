"""Parameters that surgery must leave as they are: shared by several layers, or frozen by the user."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import nn

from edgeprune.pruning.cost import Work

#: What every reason says that a layer stays for only because of the user's word.
FROZEN = "frozen (requires_grad=False)"


@dataclass(frozen=True, slots=True)
class Held:
    """The parameters of a network that surgery must leave as they are, or at least their values."""

    #: Used by more than one layer: what reads with one of them is not refitted, the others would change.
    tied: frozenset[str]
    #: By the user.
    frozen: tuple[str, ...]
    #: Those of them that may not lose channels either.
    untouchable: Collection[str]

    @classmethod
    def of(cls, network: nn.Module, work: Work, *, prune_frozen: bool) -> Held:
        """Of this network; `prune_frozen`: what the user froze may lose channels."""
        frozen = frozen_parameters(network)
        return cls(tied_parameters(network, work), frozen, () if prune_frozen else frozen)

    @property
    def values(self) -> frozenset[str]:
        """Names of them all: what reads a group is not refitted where that would change one of these."""
        return frozenset((*self.tied, *self.frozen))

    def why(self, cut: Iterable[str]) -> str | None:
        """Why a group that would cut these parameters must stay, or None."""
        held = sorted({*cut}.intersection(self.untouchable))
        return f"{held[0]} is {FROZEN}" if held else None


def frozen_parameters(network: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that the user froze (requires_grad=False)."""
    return tuple(name for name, parameter in network.named_parameters() if not parameter.requires_grad)


def tied_parameters(network: nn.Module, work: Work) -> frozenset[str]:
    """Parameters that more than one layer uses, each under all of its names.

    Two names for one parameter (`b.weight = a.weight`), or one that is also read outside of its layer
    (`F.linear(x, self.a.weight.t())`). One module that runs twice, or has two names, is no tie.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            names.setdefault(parameter, []).append(name)
    tied = {name for own in names.values() if len(own) > 1 for name in own}
    for reader, parameters in work.reads.items():
        for name in parameters:
            owner = name.rpartition(".")[0]
            # An owner that does not run by itself leaves its parameters to another module: that is no second use.
            if reader != owner and name in work.reads.get(owner, ()):
                tied.add(name)
    return frozenset(tied)
