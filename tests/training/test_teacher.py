"""A teacher's answers are those of its network, however cheaply they were had."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_place import CHANNELS_LAST, images, net
from torch import Tensor, nn

from edgeprune.core.progress import Silent
from edgeprune.training import teacher
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import train
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime
from edgeprune.training.teacher import Teacher


def seasoned(network: nn.Module) -> nn.Module:
    """With batch-norm statistics of their own, so that folding has something to do."""
    with torch.no_grad():
        network.train()(images().inputs(slice(None)))
    return network.eval()


class Counted(nn.Sequential):
    """A network that counts the images it answers, also in its copies."""

    asked: list[int]

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        out: Tensor = super().forward(x)
        return out

    def __deepcopy__(self, memo: object) -> Counted:
        return self


def counted() -> Counted:
    network = Counted(*seasoned(net(1)))
    network.asked = []
    return network


@pytest.mark.parametrize("place", [PLAIN, CHANNELS_LAST])
def test_norms_are_folded_and_answers_stay(place: Place) -> None:
    network, x = seasoned(net()), images().inputs(slice(None))
    asked = Teacher(network)
    with torch.no_grad():
        torch.testing.assert_close(asked(place.inputs(x), place), network(x), atol=1e-5, rtol=1e-5)
    assert asked._there is not None
    assert not any(isinstance(module, nn.BatchNorm2d) for module in asked._there[1].modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class Looks(nn.Module):
    """It looks into its batch norm beside calling it, as `look` does."""

    def __init__(self, look: Callable[[nn.Module], object]) -> None:
        super().__init__()
        self.conv, self.norm, self.look = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), look

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3)) * self.look(self.norm)


@pytest.mark.parametrize("look", [lambda norm: norm.weight, lambda norm: 1 if isinstance(norm, nn.BatchNorm2d) else 2])
def test_where_folding_fails_or_changes_answers_the_network_is_asked_as_it_is(
    look: Callable[[nn.Module], object],
) -> None:
    network, x = seasoned(Looks(look)), images().inputs(slice(None))
    with torch.no_grad():
        assert torch.equal(Teacher(network)(x, PLAIN), network(x))


TRAIN = images()
LEARNT = Problem(TRAIN, TRAIN)


@pytest.mark.parametrize("augmentation", [None, Augmentation(shift=0.2)])
def test_who_sees_the_same_images_is_not_told_twice(augmentation: Augmentation | None) -> None:
    def trained(distillation: Distillation, seed: int = 0) -> nn.Module:
        regime = Regime(epochs=2, learning_rate=1e-3, batch_size=32, seed=seed, augmentation=augmentation)
        return train(net(), LEARNT, regime, progress=Silent(), title="", distillation=distillation).network

    network = counted()
    shared = Distillation(network)
    first = trained(shared)
    once = sum(network.asked)
    again = trained(shared)
    assert sum(network.asked) == once
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    other = trained(shared, seed=1)
    assert (sum(network.asked) > once) == (augmentation is not None)
    for one, two in zip(other.parameters(), trained(Distillation(counted()), seed=1).parameters(), strict=True):
        assert torch.equal(one, two)


def test_images_that_return_after_some_epochs_are_asked_about_once() -> None:
    def asked_by(rounds: int | None, epochs: int, begun: float, distillation: Distillation) -> int:
        before = sum(network.asked)
        changed = Augmentation(shift=0.2)
        regime = Regime(epochs=epochs, learning_rate=1e-3, batch_size=32, seed=0, augmentation=changed)
        train(net(), LEARNT, regime, progress=Silent(), title="", distillation=distillation, begun=begun)
        return sum(network.asked) - before

    network = counted()
    always, repeats = (Distillation(network, rounds=rounds) for rounds in (None, 2))
    once = asked_by(None, 1, 0, always)
    assert once >= len(TRAIN)
    assert asked_by(None, 4, 0, Distillation(network)) >= 4 * len(TRAIN)
    # One epoch, as a finalist; going on, the second epoch is new and from then on all are known.
    assert asked_by(2, 1, 0, repeats) == once
    assert len(TRAIN) <= asked_by(2, 1, 1, repeats) < 2 * len(TRAIN)
    assert asked_by(2, 4, 1, repeats) == 0
    assert asked_by(2, 3, 0, repeats) == 0
    # Without rounds going on sees what was not seen before.
    assert asked_by(None, 1, 1, always) >= len(TRAIN)


def test_more_than_there_is_room_for_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = counted()
    asked, x = Teacher(network), images().inputs(slice(None))
    monkeypatch.setattr(teacher, "KEPT", len(x) * 2 * 4)
    first = asked.chunk("epoch", 0, x, PLAIN)
    network.asked.clear()
    assert asked.chunk("epoch", 0, x, PLAIN) is first
    assert not network.asked
    for _ in range(2):
        torch.testing.assert_close(asked.chunk("epoch", 1, x, PLAIN), first)
    assert len(network.asked) == 2
