"""Parameters that surgery must leave as they are: shared by several layers, or frozen by the user."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from edgeprune.pruning.cost import Work

#: What every reason says that a layer stays for only because of the user's word.
FROZEN = "frozen (requires_grad=False)"


@dataclass(frozen=True, slots=True)
class Held:
    """The parameters of a network that surgery must leave as they are, or at least their values."""

    #: Shared by several layers, each with the reason that keeps it whole.
    tied: Mapping[str, str]
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
        cut = set(cut)
        for name in sorted(cut & self.tied.keys()):
            return self.tied[name]
        held = sorted(cut.intersection(self.untouchable))
        return f"{held[0]} is {FROZEN}" if held else None


def frozen_parameters(network: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that the user froze (requires_grad=False)."""
    return tuple(name for name, parameter in network.named_parameters() if not parameter.requires_grad)


def tied_parameters(network: nn.Module, work: Work) -> dict[str, str]:
    """Parameters that more than one layer uses, each under all of its names, and why that keeps them whole.

    Two names for one parameter (`b.weight = a.weight`), two that look at the same numbers, or one that is also read
    outside of its layer (`F.linear(x, self.a.weight.t())`). One module that runs twice, or has two names, is no tie.
    """
    tied: dict[str, str] = {}
    places: dict[tuple[int, int], list[str]] = {}
    for prefix, module in network.named_modules():
        for leaf, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.numel():
                places.setdefault((parameter.untyped_storage().data_ptr(), parameter.storage_offset()), []).append(leaf)
    for names in places.values():
        if len(names) > 1:
            tied.update(dict.fromkeys(names, f"{' and '.join(names)} are the same parameter"))
    for reader, parameters in work.reads.items():
        for name in parameters:
            owner = name.rpartition(".")[0]
            # An owner that does not run by itself leaves its parameters to another module: that is no second use.
            if reader != owner and name in work.reads.get(owner, ()):
                tied.setdefault(name, f"{name} is also used outside of its layer, in {reader or 'the forward'}")
    return tied
