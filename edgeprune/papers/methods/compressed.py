"""What every method takes and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.core.progress import Progress
from edgeprune.pruning.structure import Structure
from edgeprune.training.batches import Batches


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch: mean training loss (cross-entropy, without penalty), and what the network had come to at its end."""

    loss: float
    #: Share of the validation images classified right by the network whose neurons that vanished are gone.
    accuracy: float
    #: Neuron compression rate of that network.
    ncr: float


@dataclass(frozen=True, slots=True)
class Compressed:
    """What a method made of a trained network.

    `network` has its full size, but the channels that `plan` leaves out play no part: what reads them is exactly zero,
    so `edgeprune.pruning.surgery.cut(network, structure.shape, plan)` computes the same.
    """

    network: nn.Module
    plan: PruningPlan
    epochs: int
    history: tuple[Epoch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a method trains: the same for all of them."""

    epochs: int
    #: The highest of the one-cycle schedule.
    learning_rate: float
    batch_size: int
    seed: int


class Method(Protocol):
    """One way to compress a trained network to a neuron compression rate."""

    def __call__(
        self,
        network: nn.Module,
        structure: Structure,
        train_set: Batches,
        validation: Batches,
        *,
        ncr: float,
        recipe: Recipe,
        progress: Progress,
    ) -> Compressed:
        """See `edgeprune.papers.methods.control.compress`."""
