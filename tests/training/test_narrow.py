"""A plan becomes a network, in one place."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.pipeline.criterion import make_criterion
from edgeprune.pipeline.scoring import Scoring
from edgeprune.pruning.groups import discover
from edgeprune.training.batches import Batches
from edgeprune.training.narrow import narrow
from edgeprune.training.problem import Problem


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.two = nn.Conv2d(16, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.two(torch.relu(self.one(x)))))
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


def made() -> tuple[Net, Batches]:
    torch.manual_seed(0)
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (256, 1, 8, 8)).astype(np.uint8)
    batches = Batches(Split(images, noise.integers(0, 3, 256)), Preprocessing(1 / 255, (0.5,), (0.25,)))
    network = Net()
    network.train()
    for _ in range(50):
        network(batches.inputs(slice(0, 256)))
    return network.eval(), batches


def test_the_network_of_a_plan_has_statistics_of_its_own() -> None:
    network, batches = made()
    structure = discover(network, (1, 8, 8), runtime="onnxruntime")
    criterion = make_criterion(
        "l1", repair=False, network=network, structure=structure, problem=Problem(batches, batches), images=64, seed=0,
        progress=Silent(),
    )  # fmt: skip
    plan = criterion.plan({group.name: group.floor for group in structure.groups})
    pruned = narrow(criterion, structure, plan, batches, images=256, check=batches.inputs(slice(0, 8)))
    x = batches.inputs(slice(0, 256))
    with torch.no_grad():
        reached = pruned.two(torch.relu(pruned.one(x)))
    mean, old = reached.mean((0, 2, 3)), network.norm.running_mean
    assert torch.allclose(pruned.norm.running_mean, mean, atol=1e-5)
    # The unpruned network's no longer fit.
    assert not torch.allclose(old[: len(mean)], mean, atol=1e-2)
    assert not pruned.training


def test_candidates_are_narrowed_as_what_ships_is() -> None:
    network, batches = made()
    structure = discover(network, (1, 8, 8), runtime="onnxruntime")
    criterion = make_criterion(
        "reconstruction", repair=True, network=network, structure=structure, problem=Problem(batches, batches),
        images=64, seed=0, progress=Silent(),
    )  # fmt: skip
    scoring = Scoring(network, structure, criterion, Problem(batches, batches), None)
    plan = PruningPlan({group.name: tuple(range(group.floor)) for group in structure.groups})
    one, other = scoring.network(plan), narrow(criterion, structure, plan, batches)
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-6), name
