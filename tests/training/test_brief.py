from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.errors import ModelError
from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.training.batches import Batches
from edgeprune.training.brief import BATCH_SIZE, BriefTuning
from edgeprune.training.fit import score, train
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime


def batches(count: int = 600) -> Batches:
    x = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    return Batches(Split(x, y), Preprocessing(1.0, (0.0,) * 8, (1.0,) * 8))


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def fit(network: nn.Module, data: Batches) -> nn.Module:
    regime = Regime(epochs=10, learning_rate=1e-2, batch_size=32, seed=0)
    return train(network, Problem(data, data), regime, progress=Silent(), title="").network


def test_a_moment_of_tuning_brings_a_network_back_and_leaves_the_given_one_alone() -> None:
    data, damaged = batches(), net(1)
    before = deepcopy(damaged.state_dict())
    able = fit(net(0), data)
    tuned = BriefTuning(data, able, steps=60, learning_rate=3e-3, seed=0)(damaged)
    assert score(tuned, data) > score(damaged, data) + 0.1
    assert not tuned.training
    for name, tensor in damaged.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_it_follows_the_teacher() -> None:
    # Labels say nothing: the student comes to answer as the teacher does, right or wrong.
    data, teacher = batches(), net(0)
    student = BriefTuning(data, teacher, steps=200, learning_rate=3e-3, seed=0)(net(1))
    x = data.inputs(slice(0, 600))
    with torch.no_grad():
        same = (student(x).argmax(1) == teacher(x).argmax(1)).double().mean()
    assert same > 0.9


def test_so_many_steps_of_so_many_images() -> None:
    seen: list[int] = []
    network = net(1)
    network.register_forward_hook(lambda module, args, _: seen.append(len(args[0])) if module.training else None)
    BriefTuning(batches(), net(0), steps=5, learning_rate=3e-3, seed=0, batch_size=32)(network)
    assert seen == [32] * 5


def test_the_same_network_is_tuned_the_same_way() -> None:
    data = batches(2 * BATCH_SIZE + 10)
    tuning = BriefTuning(data, net(0), steps=20, learning_rate=3e-3, seed=0)
    network = nn.Sequential(*net(1)[:2], nn.Dropout(0.5), net(1)[2])
    one, two = tuning(network), tuning(network)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_fewer_images_than_a_batch() -> None:
    data = batches(40)
    before, after = net(1), BriefTuning(data, net(0), steps=3, learning_rate=3e-3, seed=0)(net(1))
    assert not torch.equal(before[0].weight, after[0].weight)


def test_a_network_that_diverges_comes_back_as_it_was_and_is_counted() -> None:
    data, network = batches(), net(1)
    tuning = BriefTuning(data, net(0), steps=50, learning_rate=1e30, seed=0)
    tuned = tuning(network)
    for a, b in zip(network.parameters(), tuned.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert tuning.diverged == 1
    assert not tuned.training


def test_a_teacher_without_finite_answers_is_refused() -> None:
    teacher = net(0)
    with torch.no_grad():
        teacher[0].weight[0, 0] = math.inf
    with pytest.raises(ModelError, match="the unpruned network answers training images with NaN or infinite numbers"):
        BriefTuning(batches(), teacher, steps=1, learning_rate=5e-3, seed=0)
