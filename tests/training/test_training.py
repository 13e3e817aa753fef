import numpy as np
import torch
from torch import nn

from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.training.batches import Batches, augment
from edgeprune.training.fit import predict, score, train

PLAIN = Preprocessing(1.0, (0.0,), (1.0,))


def toy(count: int, seed: int) -> Batches:
    """Two classes told apart by the sign of the mean; a line separates them."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    x = rng.normal(size=(count, 6)).astype(np.float32) + (2 * y[:, None] - 1)
    return Batches(Split(x, y.astype(np.int64)), Preprocessing(1.0, (0.0,) * 6, (1.0,) * 6))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def fit(network: nn.Module, **options):  # type: ignore[no-untyped-def]
    defaults = {"epochs": 5, "learning_rate": 1e-2, "batch_size": 32, "seed": 0, "progress": Silent(), "title": ""}
    return train(network, toy(400, 0), toy(200, 1), **(defaults | options))


def test_training_learns_and_leaves_the_given_network_alone() -> None:
    network = net()
    before = [p.clone() for p in network.parameters()]
    result = fit(network)
    assert result.accuracy > 0.95
    assert len(result.history) == 5
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_the_best_epoch_is_kept() -> None:
    result = fit(net())
    assert result.accuracy == max(result.history) > 0.5
    assert score(result.network, toy(200, 1)) == result.accuracy


def test_one_seed_one_network() -> None:
    one, two = fit(net()), fit(net())
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))


def test_distilling_never_makes_validation_worse() -> None:
    teacher = fit(net()).network
    ruined = fit(teacher, teacher=teacher, learning_rate=100.0, epochs=1)
    assert ruined.accuracy >= score(teacher, toy(200, 1))


def test_no_epochs_is_no_training() -> None:
    teacher = fit(net()).network
    same = fit(teacher, teacher=teacher, epochs=0)
    assert same.history == ()
    assert torch.equal(predict(same.network, toy(200, 1)), predict(teacher, toy(200, 1)))


def test_preprocessing_on_the_way_is_the_data_sets_own() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 3, 4, 4), np.uint8)
    preprocessing = Preprocessing(1 / 255, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    batches = Batches(Split(x, np.zeros(5, np.int64)), preprocessing)
    np.testing.assert_allclose(batches.inputs(slice(None)).numpy(), preprocessing.apply(x), rtol=1e-5, atol=1e-6)


def test_augmenting_moves_images_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    for x in (torch.randn(4, 10), torch.randn(4, 1, 8, 8)):
        assert augment(x, generator) is x
    image = torch.zeros(64, 1, 28, 28)
    image[:, :, 14, 14] = 1
    moved = augment(image, generator)
    assert moved.shape == image.shape
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(64))
    positions = moved.flatten(1).argmax(1)
    rows, columns = positions // 28, positions % 28
    assert rows.min() >= 12
    assert rows.max() <= 16
    assert columns.unique().numel() > 1


def test_only_colour_images_are_mirrored() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.arange(16.0).expand(200, 16, 16)
    grey = augment(ramp[:, None], generator)
    colour = augment(ramp[:, None].expand(200, 3, 16, 16), generator)
    assert (grey[..., 15] > grey[..., 0]).all()
    mirrored = (colour[:, 0, :, 15] < colour[:, 0, :, 0]).all(1).float().mean()
    assert 0.3 < float(mirrored) < 0.7
