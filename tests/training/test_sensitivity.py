"""What is lost by cutting one group, as the answers show it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.pipeline.criterion import make_criterion
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure
from edgeprune.training.batches import Batches
from edgeprune.training.narrow import narrow
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.problem import Problem
from edgeprune.training.sensitivity import divergences

SHAPE = (1, 6, 6)


class Net(nn.Module):
    """Its middle layer hardly sways the answer, which goes past it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.middle, self.back = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + self.back(torch.relu(self.middle(x)))
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


def made(sway: float) -> tuple[Ranked, Structure, Batches]:
    torch.manual_seed(0)
    network, noise = Net(), np.random.default_rng(0)
    with torch.no_grad():
        network.back.weight.mul_(sway)
        network.last.weight.mul_(20)
    data = Batches(
        Split(noise.normal(size=(64, *SHAPE)).astype(np.float32), np.arange(64) % 3), Preprocessing(1.0, (0.0,), (1.0,))
    )
    structure = discover(network.eval(), SHAPE, runtime="onnxruntime", multiple_of=1)
    criterion = make_criterion(
        "reconstruction", repair=True, network=network, structure=structure, problem=Problem(data, data), images=64,
        seed=0, progress=Silent(),
    )  # fmt: skip
    return criterion, structure, data


def test_what_sways_the_answers_loses_more() -> None:
    criterion, structure, data = made(sway=1e-3)
    losses = divergences(criterion, structure, data, PLAIN, Silent())
    groups = {group.name: group for group in structure.groups}
    assert losses.keys() == groups.keys() >= {"middle"}
    for name, found in losses.items():
        # A figure for every width; the wider the less is lost, and nothing by cutting nothing.
        assert len(found) == groups[name].channels + 1
        assert list(found) == sorted(found, reverse=True)
        assert found[-1] == 0.0
        assert found[0] == found[groups[name].least]
    assert max(found[0] for found in losses.values()) == 1.0
    # The shares that the criterion gives are 1 for any group that is gone, whatever it does.
    assert losses["middle"][0] < 1e-3
    assert criterion.ranking.lost["middle"][0] == 1.0


def test_it_is_the_divergence_of_the_answers() -> None:
    """Worked out by hand; where less is lost by cutting deeper, what is lost before counts."""
    criterion, structure, data = made(sway=1.0)
    losses = divergences(criterion, structure, data, PLAIN, Silent())
    x = data.inputs(slice(0, 64))

    def divergence(name: str) -> float:
        group = next(each for each in structure.groups if each.name == name)
        widths = {each.name: each.channels for each in structure.groups}

        def answers(width: int) -> torch.Tensor:
            network = narrow(criterion, structure, criterion.plan({**widths, name: width}), data, images=64)
            with torch.no_grad():
                return network(x).log_softmax(1)  # type: ignore[no-any-return]

        p = answers(group.channels)
        cuts = [answers(width) for width in (group.least, group.floor, 2, 4, 6)]
        return max(float((p.exp() * (p - q)).sum(1).mean()) for q in cuts)

    one, other = "middle", next(name for name in losses if name != "middle")
    assert losses[one][0] / losses[other][0] == pytest.approx(divergence(one) / divergence(other), rel=1e-3)


def test_it_is_the_same_wherever_a_run_trains() -> None:
    criterion, structure, data = made(sway=1.0)
    plain = divergences(criterion, structure, data, PLAIN, Silent())
    there = divergences(criterion, structure, data, Place("cuda", "channels_last", "bfloat16"), Silent())
    for name, found in plain.items():
        assert there[name] == pytest.approx(found, abs=1e-4)
