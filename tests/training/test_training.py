import re
from collections.abc import Iterator
from time import monotonic

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.tasks.metrics import BalancedAccuracy
from edgeprune.tasks.task import Classification
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import one_cycle, predict, score, train
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime


def toy(count: int, seed: int) -> Batches:
    """Two classes told apart by the sign of the mean; a line separates them."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    x = rng.normal(size=(count, 6)).astype(np.float32) + (2 * y[:, None] - 1)
    return Batches(Split(x, y.astype(np.int64)), Preprocessing(1.0, (0.0,) * 6, (1.0,) * 6))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


TOY = Problem(toy(400, 0), toy(200, 1))


def fit(network: nn.Module, problem: Problem = TOY, *, title: str = "", clock=monotonic, distillation=None, **how):  # type: ignore[no-untyped-def]
    defaults = {"learning_rate": 1e-2, "batch_size": 32, "seed": 0}
    if "minutes" not in how:
        defaults["epochs"] = 5
    regime = Regime(**(defaults | how))
    return train(network, problem, regime, progress=Silent(), title=title, distillation=distillation, clock=clock)


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_training_learns_and_leaves_the_given_network_alone() -> None:
    network = net()
    result = fit(network)
    assert result.accuracy > 0.95
    assert len(result.history) == 5
    assert result.epochs == 5
    assert same(network, net())


def test_the_best_epoch_is_kept() -> None:
    result = fit(net())
    assert result.accuracy == max(result.history) > 0.5
    assert score(result.network, toy(200, 1)) == result.accuracy


class Wrong(nn.Module):
    """Says the opposite."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = -self.network(x)
        return answers


def test_the_last_epoch_is_taken_however_much_better_the_start_was() -> None:
    good = fit(net()).network
    result = fit(good, learning_rate=1.0, epochs=2, taken="last", distillation=Distillation(Wrong(good), 1.0, 1.0))
    assert result.accuracy == result.history[-1] < score(good, toy(200, 1))
    assert score(result.network, toy(200, 1)) == result.accuracy
    assert same(fit(good, epochs=0, taken="last").network, good)


BALANCED = Classification(BalancedAccuracy())


def test_the_metric_chooses_the_epoch() -> None:
    rare = toy(200, 1)
    # One image in ten is of the second class: accuracy says little of it.
    index = torch.tensor([i for i in range(200) if i % 2 == 0 or i % 20 == 1])
    some = Batches(Split(rare.x[index].numpy(), rare.y[index].numpy()), Preprocessing(1.0, (0.0,) * 6, (1.0,) * 6))
    result = fit(net(), Problem(some, some, BALANCED), epochs=2, learning_rate=2e-3)
    assert result.accuracy == max(result.history) == score(result.network, some, task=BALANCED)
    assert result.accuracy != score(result.network, some)


@pytest.mark.parametrize("teach", [False, True])
def test_one_seed_one_network(teach: bool) -> None:
    distillation = Distillation(fit(net()).network) if teach else None
    one, two, other = (fit(net(), distillation=distillation, seed=seed) for seed in (3, 3, 4))
    assert same(one.network, two.network)
    assert not same(one.network, other.network)


def test_distilling_never_makes_validation_worse() -> None:
    teacher = fit(net()).network
    ruined = fit(teacher, distillation=Distillation(teacher), learning_rate=100.0, epochs=1)
    assert ruined.accuracy >= score(teacher, toy(200, 1))


def test_no_epochs_is_no_training() -> None:
    teacher = fit(net()).network
    none = fit(teacher, distillation=Distillation(teacher), epochs=0)
    assert none.history == ()
    assert none.epochs == 0
    assert torch.equal(predict(none.network, toy(200, 1)), predict(teacher, toy(200, 1)))


def test_the_loss_is_what_the_definition_gives() -> None:
    """Two logits, two classes, by hand: p = sigmoid of the difference."""
    logits, labels, answers = torch.tensor([[1.0, -1.0]]), torch.tensor([0]), torch.tensor([[0.0, 4.0]])
    sigmoid = lambda value: 1 / (1 + np.exp(-value))  # noqa: E731
    hard = -np.log(sigmoid(2.0))
    target = sigmoid(4.0 / 2)
    soft = -(target * np.log(sigmoid(-2.0 / 2)) + (1 - target) * np.log(sigmoid(2.0 / 2)))
    distillation = Distillation(net(), temperature=2.0, share=0.3)
    found = distillation.loss(logits, labels, distillation.soften(answers))
    assert float(found) == pytest.approx(0.7 * hard + 0.3 * 4 * soft, rel=1e-5)


def test_labels_only_at_share_0_and_only_the_teacher_at_share_1() -> None:
    class Refuses(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("asked")

    unasked = fit(net(), distillation=Distillation(Refuses(), share=0.0))
    assert same(unasked.network, fit(net()).network)
    # A teacher that says the opposite of the labels is believed.
    teacher = fit(net()).network
    with torch.no_grad():
        teacher[2].weight.neg_()
        teacher[2].bias.neg_()
    right = toy(200, 1)
    wrong = Batches(Split(right.x.numpy(), 1 - right.y.numpy()), Preprocessing(1.0, (0.0,) * 6, (1.0,) * 6))
    misled = fit(net(), Problem(toy(400, 0), wrong), epochs=3, distillation=Distillation(teacher, share=1.0))
    assert misled.accuracy > 0.9


def test_the_temperature_reaches_the_training() -> None:
    teacher = fit(net()).network
    one, two = (fit(net(), distillation=Distillation(teacher, temperature=t), epochs=1) for t in (1.0, 8.0))
    assert not same(one.network, two.network)


def test_answers_known_beforehand_are_those_of_the_batch() -> None:
    """Without augmentation the teacher is asked once for all images; that must not change what is learned."""
    teacher = fit(net()).network
    asked: list[int] = []

    class Counts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return teacher(x)

    known = fit(net(), distillation=Distillation(Counts()), epochs=3)
    assert sum(asked) == 400
    data = toy(400, 0)
    images = Batches(Split(data.x.reshape(400, 1, 2, 3).numpy(), data.y.numpy()), Preprocessing(1.0, (0.0,), (1.0,)))

    def flat(network: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Flatten(), network)

    asked.clear()
    other = fit(
        flat(net()), Problem(images, images), epochs=3, distillation=Distillation(flat(Counts())),
        augmentation=Augmentation(),
    )  # fmt: skip
    assert sum(asked) == 3 * 400
    assert other.accuracy == pytest.approx(known.accuracy, abs=0.05)


def test_a_part_of_an_epoch() -> None:
    """Three of four batches are seen, by a schedule of that length, and validation looks once."""
    seen: list[int] = []

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(len(x))
            answers: torch.Tensor = self.inner(x)
            return answers

    data = toy(128, 0)
    part = fit(Counts(), Problem(data, data), epochs=0.75)
    assert (part.epochs, len(part.history)) == (0.75, 1)
    assert seen == [32] * 3


def test_weights_decay_and_biases_do_not() -> None:
    class Idle(nn.Module):
        """Half of it plays no part: its gradients are zero, and only decay moves it."""

        def __init__(self) -> None:
            super().__init__()
            self.at_work, self.idle = net(), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.at_work(x) + 0 * self.idle(x)
            return out

    given = Idle()
    little, much = (fit(given, weight_decay=decay).network.idle for decay in (0.0, 0.1))
    assert same(little, given.idle)
    assert torch.equal(much.bias, given.idle.bias)
    shrunk = (much.weight / given.idle.weight).detach()
    assert torch.allclose(shrunk, shrunk.mean().expand_as(shrunk), rtol=1e-4)
    assert 0.9 < float(shrunk.mean()) < 0.999


def test_one_cycle_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=1001, pct_start=201 / 1001)
    for step in range(1000):
        share, beta = one_cycle(step / 1000)
        assert 0.01 * share == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-4)
        assert beta == pytest.approx(optimizer.param_groups[0]["betas"][0], rel=1e-4)
        optimizer.step()
        schedule.step()


class Clock:
    """A clock that goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_minutes_end_in_time_and_go_through_the_whole_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), real(self, *a))[1]
    )
    clock = Clock()
    # An epoch has 13 batches, each asks the clock once; the start, the end and every epoch ask a few times more.
    result = fit(net(), minutes=1.0, clock=clock)
    assert clock.now <= 65
    assert 3 < result.epochs < 60 / 13
    assert len(result.history) == 4 == np.ceil(result.epochs)
    assert len(rates) == round(13 * result.epochs)
    assert max(rates) == pytest.approx(1e-2, rel=0.02)
    assert rates[-1] < 1e-4
    assert rates[0] < 2.5e-3


def test_no_time_is_no_training() -> None:
    result = fit(net(), minutes=1 / 60, clock=Clock())
    assert result.epochs == 0
    assert same(result.network, net())


def test_epochs_or_minutes() -> None:
    for options in ({"epochs": None}, {"epochs": 1, "minutes": 1.0}):
        with pytest.raises(UsageError, match="either epochs or minutes"):
            fit(net(), **options)


def test_every_image_is_seen_once_an_epoch_and_none_alone() -> None:
    seen: list[torch.Tensor] = []

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(x[:, 0].detach())
            return self.linear(x)

    def numbers(count: int) -> Batches:
        x = np.arange(count, dtype=np.float32)[:, None]
        return Batches(Split(x, np.arange(count) % 2), Preprocessing(1.0, (0.0,), (1.0,)))

    def batches(count: int) -> Iterator[int]:
        seen.clear()
        fit(Looks(), Problem(numbers(count), numbers(4)), epochs=1, learning_rate=1e-3, batch_size=10)
        return (len(batch) for batch in seen)

    assert list(batches(42)) == [10, 10, 10, 10, 2]
    assert sorted(torch.cat(seen).tolist()) == list(range(42))
    assert list(batches(41)) == [10, 10, 10, 10]


def test_preprocessing_on_the_way_is_the_data_sets_own() -> None:
    rng = np.random.default_rng(0)
    preprocessing = Preprocessing(1 / 255, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    for x in (rng.integers(0, 256, (5, 3, 4, 4), np.uint8), rng.random((5, 3, 4, 4), np.float32)):
        batches = Batches(Split(x, np.zeros(5, np.int64)), preprocessing)
        for _ in range(2):
            found = batches.inputs(slice(None)).numpy()
            np.testing.assert_allclose(found, preprocessing.apply(x), rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_ends_training_and_says_where() -> None:
    with pytest.raises(ModelError) as diverged:
        fit(net(), learning_rate=1e30, title="training the baseline")
    assert re.match(
        r"training the baseline diverged: the loss is (nan|inf) in epoch \d after \d+ steps, at a learning rate of ",
        diverged.value.message,
    )
    assert "likely causes, in order: inputs that are scaled badly" in diverged.value.hint
    huge = Batches(
        Split(np.full((64, 6), 3e38, np.float32), np.arange(64) % 2), Preprocessing(1.0, (0.0,) * 6, (1.0,) * 6)
    )
    with pytest.raises(ModelError, match="in epoch 1 after 0 steps"):
        fit(net(), Problem(huge, huge), epochs=1, learning_rate=1e-3, title="training")
