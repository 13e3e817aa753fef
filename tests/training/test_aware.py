"""Training that knows of 8-bit integers."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.training.aware import learnt, rounding
from edgeprune.training.batches import Batches
from edgeprune.training.fit import score, train
from edgeprune.training.place import Place
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime


def batches(count: int = 600) -> Batches:
    x = np.random.default_rng(0).normal(size=(count, 1, 8, 8)).astype(np.float32)
    y = (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).astype(np.int64)
    return Batches(Split(x, y), Preprocessing(1.0, (0.0,), (1.0,)))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 2),
    )


def fit(network: nn.Module, data: Batches, epochs: float = 4, place: Place | None = None) -> nn.Module:
    regime = Regime(epochs=epochs, learning_rate=3e-3, batch_size=32, seed=0, place=place or Place())
    return train(network, Problem(data, data), regime, progress=Silent(), title="").network


@pytest.fixture(scope="module")
def able() -> nn.Module:
    return fit(net(), batches())


def hidden_by_one(network: nn.Module) -> nn.Module:
    """The same function, one of whose channels is 500 times as large as the others between two layers."""
    odd = deepcopy(network)
    with torch.no_grad():
        odd[1].weight[0] *= 500
        odd[1].bias[0] *= 500
        odd[3].weight[0] /= 500
    return odd


def test_it_computes_on_a_grid_of_256_values(able: nn.Module) -> None:
    data = batches()
    rounded = rounding(able, data, 600)
    weights = rounded[0].weight[3]
    assert len(torch.unique((weights / weights.abs().max() * 127).round())) == len(torch.unique(weights))
    seen = []
    rounded[6].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        answers = rounded(data.inputs(slice(0, 600)))
        wanted = able(data.inputs(slice(0, 600)))
    assert len(torch.unique(seen[0])) <= 256
    assert (answers - wanted).std() < 0.1 * wanted.std()
    # Whatever was rounded is another network's affair.
    assert not any(module is other for module in able.modules() for other in rounded.modules())


def test_what_is_learnt_is_a_plain_network(able: nn.Module) -> None:
    rounded = rounding(able, batches(), 600)
    plain = learnt(able, rounded, batches())
    assert {type(module).__name__ for module in plain.modules()} <= {
        "Sequential", "Conv2d", "Identity", "ReLU", "Flatten", "Linear"
    }  # fmt: skip
    torch.testing.assert_close(plain[0].weight, rounded[0].weight.detach(), rtol=0, atol=0)
    assert not plain.training


@pytest.mark.parametrize("place", [Place(), Place(memory_format="channels_last"), Place(precision="bfloat16")])
def test_what_rounding_breaks_is_learnt_again(able: nn.Module, place: Place) -> None:
    data, odd = batches(), hidden_by_one(able)
    whole = score(odd, data)
    broken = rounding(odd, data, 600)
    assert score(broken, data) < whole - 0.1
    better = learnt(odd, fit(broken, data, 4, place), data)
    assert score(rounding(better, data, 600), data) > score(broken, data) + 0.1


def test_what_is_frozen_stays_so(able: nn.Module) -> None:
    able = deepcopy(able)
    for parameter in able[0:2].parameters():
        parameter.requires_grad_(False)
    rounded = rounding(able, batches(), 100)
    moved = {name for name, parameter in rounded.named_parameters() if parameter.requires_grad}
    assert moved == {
        "3.bias", "3.parametrizations.weight.original", "6.bias", "6.parametrizations.weight.original"
    }  # fmt: skip
