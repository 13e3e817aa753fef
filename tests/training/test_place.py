"""Networks leave every place as they would leave the plain one: same strides, same answers but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.brief import BriefTuning
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import Fit, predict, train
from edgeprune.training.pace import available
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.problem import Problem
from edgeprune.training.recalibration import recalibrate
from edgeprune.training.regime import Regime

CHANNELS_LAST = Place(memory_format="channels_last")
BFLOAT16 = Place(memory_format="channels_last", precision="bfloat16")
# Where there is such a device: CI has none.
_CUDA = pytest.mark.skipif(not available("cuda"), reason="needs a CUDA device")
CUDA = Place("cuda", "channels_last")
CUDA_BFLOAT16 = Place("cuda", "channels_last", "bfloat16")


def images(count: int = 96) -> Batches:
    """Two classes: brighter to the left, or to the right."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 2
    x = rng.normal(size=(count, 2, 8, 8)).astype(np.float32)
    x[:, :, :, :4] += (2 * y - 1)[:, None, None, None]
    return Batches(Split(x, y.astype(np.int64)), Preprocessing(1.0, (0.0, 0.0), (1.0, 1.0)))


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip


def fit(place: Place) -> Fit:
    changed = Augmentation(shift=0.2)
    regime = Regime(epochs=2, learning_rate=1e-3, batch_size=32, seed=0, augmentation=changed, place=place)
    teacher = Distillation(net(1))
    return train(net(), Problem(images(), images()), regime, progress=Silent(), title="", distillation=teacher)


def assert_usual(network: nn.Module) -> None:
    for tensor in network.state_dict().values():
        assert tensor.stride() == torch.empty(tensor.shape).stride()
        assert tensor.device.type == "cpu"
        assert tensor.dtype in (torch.float32, torch.int64)


def assert_near(one: nn.Module, two: nn.Module, tolerance: float) -> None:
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("place", [PLAIN, CHANNELS_LAST, BFLOAT16, pytest.param(CUDA, marks=_CUDA)])
def test_there_and_back_changes_nothing(place: Place) -> None:
    network = net()
    there = place.copy(network)
    assert there is not network
    assert_usual(network)
    assert_usual(place.back(there))
    assert_near(there, network, 0)


def test_a_place_is_where_networks_and_images_are() -> None:
    # Also kernels of 1x1, and of one channel, whose numbers lie alike in either format.
    for each in (module for module in CHANNELS_LAST.copy(net()) if isinstance(module, nn.Conv2d)):
        assert each.weight.stride(1) == 1
        assert each.weight.stride(3) == each.weight.shape[1]
    x = torch.rand(2, 3, 4, 4)
    assert CHANNELS_LAST.inputs(x).is_contiguous(memory_format=torch.channels_last)
    assert CHANNELS_LAST.inputs(torch.rand(2, 3)).shape == (2, 3)
    assert PLAIN.inputs(x) is x
    with torch.no_grad():
        assert BFLOAT16.forward(BFLOAT16.copy(net()), BFLOAT16.inputs(torch.rand(2, 2, 8, 8))).dtype == torch.float32


@pytest.mark.parametrize(
    ("place", "tolerance", "again"),
    [
        (CHANNELS_LAST, 1e-3, 0),
        (BFLOAT16, 5e-2, 0),
        # The order of a sum is not the same from run to run there.
        pytest.param(CUDA, 1e-2, 1e-3, marks=_CUDA),
        pytest.param(CUDA_BFLOAT16, 5e-2, 5e-2, marks=_CUDA),
    ],
)
def test_training_comes_to_the_same_anywhere(place: Place, tolerance: float, again: float) -> None:
    plain, there = fit(PLAIN), fit(place)
    assert_usual(there.network)
    assert_near(there.network, plain.network, tolerance)
    assert there.accuracy == pytest.approx(plain.accuracy, abs=0.05)
    # What is judged ships in float32.
    assert_near(fit(place).network, there.network, again)


@pytest.mark.parametrize(("place", "tolerance"), [(CHANNELS_LAST, 1e-5), pytest.param(CUDA, 1e-2, marks=_CUDA)])
def test_answers_brief_tuning_and_statistics_too(place: Place, tolerance: float) -> None:
    data, network = images(), net()
    torch.testing.assert_close(
        predict(network, data, place=place), predict(network, data), rtol=tolerance, atol=tolerance
    )
    tuned = [BriefTuning(data, net(1), steps=3, learning_rate=1e-4, seed=0, place=p)(network) for p in (PLAIN, place)]
    assert_usual(tuned[1])
    assert_near(tuned[0], tuned[1], max(tolerance, 1e-3))
    here, there = net(), net()
    recalibrate(here, [data.inputs(slice(0, 64))])
    recalibrate(there, [data.inputs(slice(0, 64))], place)
    assert_usual(there)
    assert_near(here, there, tolerance)
    assert not torch.equal(there.state_dict()["1.running_mean"], net().state_dict()["1.running_mean"])
