"""Work and parameters by arithmetic are those of the network that is really cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.models.zoo import build
from edgeprune.pruning.cost import count_macs, count_parameters
from edgeprune.pruning.groups import discover
from edgeprune.pruning.shares import LayerShares
from edgeprune.pruning.surgery import cut


class Branches(nn.Module):
    """Two branches that are concatenated, with a depthwise convolution behind."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.norm = nn.BatchNorm2d(24)
        self.mix = nn.Conv2d(24, 12, 1)
        self.last = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.cat([self.one(x), self.two(x)], 1))
        x = torch.relu(self.mix(self.norm(self.depthwise(x))))
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


NETS = {
    "ds-cnn": (lambda: build("ds-cnn", (1, 28, 28), 10), (1, 28, 28)),
    "resnet20": (lambda: build("resnet20", (3, 32, 32), 10), (3, 32, 32)),
    "lenet5": (lambda: build("lenet5", (1, 28, 28), 10), (1, 28, 28)),
    "lenet-300-100": (lambda: build("lenet-300-100", (1, 28, 28), 10), (1, 28, 28)),
    "branches": (Branches, (3, 8, 8)),
}


@pytest.mark.parametrize("name", NETS)
def test_shares_are_those_of_the_network_that_is_cut(name: str) -> None:
    make, shape = NETS[name]
    torch.manual_seed(0)
    network = make().eval()
    structure = discover(network, shape, runtime="onnxruntime", prune_inputs=False)
    shares = LayerShares(network, structure)
    assert shares({}) == pytest.approx((1.0, 1.0, 1.0))
    noise = np.random.default_rng(0)
    for _ in range(2):
        widths = {g.name: g.snap(g.channels * noise.uniform(0.2, 1.0)) for g in structure.groups}
        pruned = cut(network, shape, PruningPlan({name: tuple(range(width)) for name, width in widths.items()}))
        found = shares(widths)
        assert found.macs == pytest.approx(count_macs(pruned, shape) / count_macs(network, shape), rel=1e-6)
        # Biases go with what a layer makes, not with what it reads as well.
        assert found.parameters == pytest.approx(count_parameters(pruned) / count_parameters(network), rel=0.03)


def test_blocks_are_filled_by_the_groups_of_an_axis_together() -> None:
    """Two streams side by side: 24 of 32 channels save nothing where kernels take 16, and 16 of them a half."""
    network = build("resnet20", (3, 32, 32), 10).eval()
    structure = discover(network, (3, 32, 32), runtime="onnxruntime", prune_inputs=False)
    shares = LayerShares(network, structure)
    one, other = {"conv1": 8}, {"layer2.0.conv2": 8}
    # Of the second stage's 32 channels these are 24, and the first stage's 8 of 16 are one block as well.
    assert shares(one).blocked == shares(other).blocked == 1.0
    assert shares(one).macs < 1.0
    assert 0.7 < shares({**one, **other}).blocked < 0.85
    within = shares({"layer3.1.conv1": 32})
    assert within.blocked == pytest.approx(within.macs)
