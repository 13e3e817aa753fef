"""What CGES, L0 and AutoPrune promise alike: the rate, the floors, the same function once cut, the seed."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from edgeprune.core.design import Group
from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Silent
from edgeprune.data.catalog import load_data
from edgeprune.models.zoo import MLP
from edgeprune.papers.methods import METHODS, Compressed, Recipe
from edgeprune.papers.methods.control import settle, widths
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import check_equal, cut
from edgeprune.training.batches import Batches
from edgeprune.training.fit import score, train
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime

SHAPE = (1, 8, 8)


@cache
def digits() -> tuple[Batches, Batches]:
    data = load_data("digits", None, seed=0, progress=Silent())
    return Batches(data.train, data.preprocessing), Batches(data.validation, data.preprocessing)


class SmallConv(nn.Module):
    """Plain convolutions with batch norm, so that a channel's maker does not alone decide what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12)
        self.fc1, self.fc2 = nn.Linear(108, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


@cache
def trained(kind: str) -> tuple[nn.Module, Structure]:
    torch.manual_seed(0)
    network = MLP(64, (40, 20), 10) if kind == "mlp" else SmallConv()
    regime = Regime(epochs=8, learning_rate=5e-3, batch_size=32, seed=0)
    fit = train(network, Problem(*digits()), regime, progress=Silent(), title="baseline")
    return fit.network, discover(fit.network, SHAPE, runtime="onnxruntime", multiple_of=None if kind == "mlp" else 2)


def compress(method: str, kind: str = "mlp", *, ncr: float = 2.0, epochs: int = 8, seed: int = 0) -> Compressed:
    network, structure = trained(kind)
    return METHODS[method](
        network,
        structure,
        *digits(),
        ncr=ncr,
        recipe=Recipe(epochs=epochs, learning_rate=5e-3, batch_size=32, seed=seed),
        progress=Silent(),
    )


@cache
def compressed(method: str, kind: str) -> Compressed:
    return compress(method, kind)


every_method = pytest.mark.parametrize("method", sorted(METHODS))
every_network = pytest.mark.parametrize("kind", ["mlp", pytest.param("conv", marks=pytest.mark.soak)])


@every_network
@every_method
def test_the_rate_asked_for_is_reached_and_hardly_passed(method: str, kind: str) -> None:
    network, structure = trained(kind)
    result = compressed(method, kind)
    small = cut(result.network, SHAPE, result.plan)
    ncr = structure.neurons(network) / structure.neurons(small)
    # One step of the widest group (two channels of the convolutional net) is the finest there is.
    assert 2.0 <= ncr < (2.05 if kind == "mlp" else 2.2)
    assert result.history[-1].ncr == pytest.approx(ncr)
    assert len(result.history) == result.epochs == 8
    for group in structure.groups:
        width = result.plan.widths[group.name]
        assert width == group.snap(width) >= group.floor


@every_network
@every_method
def test_what_went_plays_no_part(method: str, kind: str) -> None:
    _, structure = trained(kind)
    result = compressed(method, kind)
    _, validation = digits()
    small = cut(result.network, SHAPE, result.plan)
    assert check_equal(result.network, small, SHAPE, validation.inputs(slice(0, 50))) < 1e-9
    for coupling in structure.couplings:
        kept = set(result.plan.kept[coupling.group.name])
        for consumer in coupling.consumers:
            weight = result.network.get_submodule(consumer.layer).weight
            for channel, columns in enumerate(consumer.columns):
                assert bool((weight[:, list(columns)] != 0).any()) == (channel in kept)


@every_network
@every_method
def test_what_is_left_still_knows_the_digits(method: str, kind: str) -> None:
    network, _ = trained(kind)
    _, validation = digits()
    before, result = score(network, validation), compressed(method, kind)
    assert before > 0.95
    assert score(result.network, validation) > before - 0.12
    settled = [epoch.accuracy for epoch in result.history if epoch.ncr >= 2.0]
    assert score(result.network, validation) == max(settled)


@every_method
def test_one_seed_one_result_and_the_given_network_is_left_alone(method: str) -> None:
    network, _ = trained("mlp")
    before = [parameter.clone() for parameter in network.parameters()]
    state = torch.random.get_rng_state()
    again, other = compress(method), compress(method, seed=1)
    first = compressed(method, "mlp")
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert again.plan == first.plan
    assert again.history == first.history != other.history
    for one, two in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, two)


@every_method
def test_the_highest_rate_that_floors_allow_is_reached(method: str) -> None:
    network, structure = trained("mlp")
    floors = {group.name: group.floor for group in structure.groups}
    most = structure.neurons(network) / sum(floors.values())
    assert compress(method, ncr=most, epochs=6).plan.widths == floors


@every_method
def test_a_rate_that_cannot_be(method: str) -> None:
    with pytest.raises(UsageError, match="floors allow 10") as caught:
        compress(method, ncr=200)
    assert "ask for at most 10" in caught.value.hint
    for ncr in (0.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="at least 1"):
            compress(method, ncr=ncr)
    with pytest.raises(UsageError, match="0 epochs"):
        compress(method, epochs=0)


@every_method
def test_too_few_steps_are_an_error_not_a_half_pruned_network(method: str) -> None:
    network, structure = trained("mlp")
    with pytest.raises(UsageError, match="in 1 epochs, not to 5; give it more: --train-epochs N"):
        METHODS[method](
            network,
            structure,
            *digits(),
            ncr=5.0,
            recipe=Recipe(epochs=1, learning_rate=1e-3, batch_size=2000, seed=0),
            progress=Silent(),
        )


def group(name: str, channels: int, floor: int = 1, multiple_of: int = 1) -> Group:
    return Group(name, channels, floor, multiple_of, 0.0, 0.0, 0, ())


def test_a_crossing_brings_back_the_strongest_that_the_rate_allows() -> None:
    groups = (group("a", 4), group("b", 6))
    margins = {"a": torch.tensor([3.0, -0.1, -0.5, -2.0]), "b": torch.tensor([-0.2, 1.0, -9.0, -0.3, -9.0, -9.0])}
    assert widths(groups, margins) == {"a": 1, "b": 1}
    # 12 neurons, two of them in no group: at a rate of 2, six may stay, four of the groups'.
    assert settle(groups, margins, 12, 2.0).kept == {"a": (0, 1), "b": (0, 1)}
    assert settle(groups, margins, 12, 1.0).widths == {"a": 4, "b": 6}


def test_a_crossing_keeps_to_allowed_widths() -> None:
    groups = (group("a", 16, floor=4, multiple_of=4), group("b", 4))
    margins = {"a": torch.arange(16.0) - 5, "b": torch.tensor([-1.0, -2.0, -3.0, -4.0])}
    assert widths(groups, margins) == {"a": 8, "b": 1}
    assert settle(groups, margins, 20, 20 / 11).widths == {"a": 8, "b": 3}
    assert settle(groups, margins, 20, 20 / 13).widths == {"a": 12, "b": 1}
