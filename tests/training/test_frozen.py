"""Frozen parameters (requires_grad=False) keep their values bit for bit, whatever trains or computes anew."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.pipeline.finetune import Tuner, prune_and_tune
from edgeprune.pruning import rankings
from edgeprune.pruning.calibration import gram_matrices
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut
from edgeprune.training.batches import Batches
from edgeprune.training.brief import BriefTuning
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import train
from edgeprune.training.frozen import frozen_norms
from edgeprune.training.problem import Problem
from edgeprune.training.recalibration import recalibrate
from edgeprune.training.regime import FINETUNE_DECAY, Regime

SHAPE = (2, 6, 6)


@pytest.fixture(scope="module")
def data() -> Batches:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 256)
    x = rng.normal(size=(256, *SHAPE)).astype(np.float32) + labels[:, None, None, None].astype(np.float32)
    return Batches(Split(x, labels), Preprocessing(1.0, (0.0, 0.0), (1.0, 1.0)))


class Transfer(nn.Module):
    """A backbone that is frozen, and a head that learns; the backbone's last norm has no scale and shift of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3, bias=False),
            nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU())
        self.out = nn.Linear(16, 3)
        self.backbone.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.backbone(x)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Transfer().eval()


def kept(before: nn.Module, after: nn.Module) -> Iterator[tuple[str, bool]]:
    """Every number of the network, and whether it is still the same."""
    state = after.state_dict()
    for name, tensor in before.state_dict().items():
        if tensor.is_floating_point():
            yield name, tensor.shape == state[name].shape and torch.equal(tensor, state[name])


def check(before: nn.Module, after: nn.Module) -> None:
    same = dict(kept(before, after))
    assert all(same[name] for name in same if name.startswith("backbone.")), same
    moved = [name for name in same if not same[name]]
    assert {"head.0.weight", "head.1.running_mean", "out.bias"} <= set(moved)
    assert [p.requires_grad for p in after.backbone.parameters()] == [False] * 5


def test_norms_are_frozen_with_their_scale_or_with_their_surroundings() -> None:
    assert len(frozen_norms(network())) == 2
    free = Transfer()
    free.backbone.requires_grad_(True)
    assert frozen_norms(free) == []


def test_training_keeps_what_is_frozen(data: Batches) -> None:
    before = network()
    regime = Regime(epochs=6, learning_rate=1e-2, batch_size=32, seed=0)
    fit = train(before, Problem(data, data), regime, progress=Silent(), title="training")
    check(before, fit.network)


def test_a_moment_of_tuning_keeps_what_is_frozen(data: Batches) -> None:
    before = network()
    check(before, BriefTuning(data, before, steps=4, learning_rate=1e-2, seed=0)(before))


def test_statistics_of_frozen_norms_are_not_computed_anew(data: Batches) -> None:
    before, after = network(), network()
    recalibrate(after, [data.inputs(slice(0, 64))])
    changed = [name for name, same in kept(before, after) if not same]
    assert changed == ["head.1.running_mean", "head.1.running_var"]


def test_a_network_that_is_frozen_as_a_whole_comes_back_as_it_was(data: Batches) -> None:
    before = network()
    before.requires_grad_(False)
    regime = Regime(epochs=3, learning_rate=1e-2, batch_size=32, seed=0)
    fit = train(before, Problem(data, data), regime, progress=Silent(), title="training")
    assert (fit.epochs, fit.history) == (0.0, ())
    tuned = BriefTuning(data, before, steps=4, learning_rate=1e-2, seed=0)(before)
    assert all(same for other in (fit.network, tuned) for _, same in kept(before, other))


@pytest.mark.parametrize("prune_frozen", [False, True])
def test_pruning_in_steps_keeps_what_is_frozen(data: Batches, prune_frozen: bool) -> None:
    before = network()
    structure = discover(before, SHAPE, runtime="litert", multiple_of=1, prune_frozen=prune_frozen)
    names = [group.name for group in structure.groups]
    assert names == (["backbone.0", "backbone.3"] if prune_frozen else []) + ["head.0", "head.3"]

    def rank(of: nn.Module, structure: Structure) -> Ranked:
        layers = sorted({reader.layer for coupling in structure.couplings for reader in coupling.consumers})
        grams = gram_matrices(of, layers, [data.inputs(slice(0, 128))], 128)
        return Ranked(of, structure, rankings.reconstruction(of, structure, grams), grams)

    regime = Regime(epochs=8, batch_size=32, learning_rate=1e-2, seed=0, weight_decay=FINETUNE_DECAY)
    tuner = Tuner(problem=Problem(data, data), regime=regime, teacher=Distillation(before), progress=Silent())
    widths = {group.name: group.channels // 2 for group in structure.groups}
    _, fit, plan = prune_and_tune(before, structure, widths, rank, tuner, iterations=2)
    # What is left of the backbone is what the user gave, channel for channel.
    check(cut(before, SHAPE, plan), fit.network)
