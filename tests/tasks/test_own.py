"""A task of the user's own: what he returns, what he is given, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.core.errors import DataError, UsageError
from edgeprune.core.joined import Joined
from edgeprune.core.progress import Silent
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset
from edgeprune.models.inputs import ask
from edgeprune.models.source import answered
from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.own import OwnTask, load_own, make_own, own_targets
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import score, train
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime

FILE = """
import numpy as np
import torch

RNG = np.random.default_rng(0)

def some(count):
    x = RNG.normal(size=(count, 6)).astype("float32")
    return x, [{"sum": x[i].sum(), "sides": (x[i, :2] > 0).astype(int)} for i in range(count)]

def data():
    (x, y), (x_test, y_test) = some(300), some(60)
    return {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}

def ragged():
    found = data()
    for part in ("y_train", "y_test"):
        found[part] = [{"points": RNG.normal(size=(i % 3 + 1, 2))} for i in range(len(found[part]))]
    return found

class Task:
    better = "higher"
    def loss(self, output, target):
        off = output["sum"] - target["sum"].reshape(-1, 1)
        assert target["sides"].dtype == torch.int64
        return off.square().mean() + torch.nn.functional.binary_cross_entropy_with_logits(
            output["sides"], target["sides"].float())
    def score(self, output, target):
        return ((output["sides"] > 0) == (target["sides"] > 0)).mean()

class Curve(Task):
    def score(self, output, target):
        from sklearn.metrics import roc_auc_score
        return roc_auc_score(target["sides"][:, 0], output["sides"][:, 0])

class Lower(Task):
    better = "lower"
    def score(self, output, target):
        return np.abs(output["sum"][:, 0] - target["sum"]).mean()

class Chance(Lower):
    chance = 5.0

class Steps(Task):
    def step(self, network, inputs, target):
        (x,) = inputs
        return network(x)["sum"].square().mean()

class Padding(Task):
    def __init__(self, width=3): self.width = width
    def collate(self, targets):
        points = np.zeros((len(targets), self.width, 2), "float32")
        for row, each in zip(points, targets): row[: len(each["points"])] = each["points"]
        return {"points": points, "count": [len(each["points"]) for each in targets]}

class Uneven(Padding):
    def collate(self, targets):
        self.width = 3 + len(targets) % 7
        return super().collate(targets)

class Fewer(Padding):
    def collate(self, targets): return super().collate(targets[:-1])

class Large(Padding):
    def collate(self, targets): return {"points": super().collate(targets)["points"], "id": [1 << 25] * len(targets)}

class Huge(Padding):
    def collate(self, targets): return np.full(len(targets), 1e39)

class Beyond(Task):
    def score(self, output, target): return 30.0

class Breaks(Task):
    def score(self, output, target): return 1 / 0

class Words(Task):
    def loss(self, output, target): return "much"

class Nothing(Task):
    score = None

class Which(Task):
    better = "more"

class Wild(Task):
    chance = float("nan")

class Perfect(Lower):
    def score(self, output, target): return float(np.abs(output["sum"]).mean())
"""


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.sum, self.sides = nn.Linear(6, 32), nn.Linear(32, 1), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The sum (N, 1), and which of two are above 0, logits (N, 2)."""
        seen = torch.relu(self.body(x))
        return {"sum": self.sum(seen), "sides": self.sides(seen)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(FILE)
    return path


def loaded(file: Path, name: str, data: str = "data") -> tuple[Dataset, OwnTask, nn.Module]:
    spec = f"{file}:{name}"
    owner = load_own(spec)
    dataset = load_data(f"{file}:{data}", None, seed=0, progress=Silent(), task=own_targets(spec, owner))
    torch.manual_seed(0)
    network = Two()
    output = answered(network, "two", (6,), several=True)
    return dataset, make_own(spec, owner, output.layout, dataset.target_layout, output.shape[1:]), network


def test_outputs_and_targets_are_handed_over_as_they_were_made(file: Path) -> None:
    dataset, task, network = loaded(file, "Task")
    assert dataset.targets == "own"
    assert dataset.train.y.shape == (270, 3)
    batches = Batches(dataset.test, dataset.preprocessing)
    x = batches.inputs(slice(None))
    with torch.no_grad():
        raw, joined = network(x), ask(network, x)
    assert joined.shape == (60, 3)
    apart = task.outputs.split(joined)
    assert set(apart) == {"sum", "sides"}
    for name, each in raw.items():
        torch.testing.assert_close(apart[name], each)
    targets = dataset.target_layout.split(dataset.test.y)
    np.testing.assert_allclose(targets["sum"], dataset.test.x.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(targets["sides"], dataset.test.x[:, :2] > 0)
    right = ((raw["sides"] > 0).numpy() == targets["sides"]).mean()
    assert task.metric.value(joined.numpy(), dataset.test.y) == pytest.approx(right)
    # Each example by itself, and all together.
    assert task.metric.merits(joined.numpy(), dataset.test.y).mean() == pytest.approx(right)
    assert task.agreement(joined.numpy(), joined.numpy()) == 1.0
    whole, part = (objective_of(task).loss(joined, batches.y, reduction) for reduction in ("mean", "sum"))
    assert float(part) == pytest.approx(60 * float(whole))


@pytest.mark.parametrize(("name", "metric", "share", "chance"), [
    ("Task", "score", True, None), ("Lower", "error", False, None), ("Chance", "error", False, 5.0)
])  # fmt: skip
def test_training_makes_the_score_better(file: Path, name: str, metric: str, share: bool, chance: float | None) -> None:
    dataset, task, network = loaded(file, name)
    assert (task.metric.name, task.metric.share, task.metric.unit) == (metric, share, "points" if share else "%")
    sets = [Batches(split, dataset.preprocessing) for split in (dataset.train, dataset.validation)]
    before = score(network, sets[1], task=task)
    problem, regime = Problem(sets[0], sets[1], task), Regime(epochs=8, learning_rate=0.01, batch_size=32, seed=0)
    fit = train(network, problem, regime, progress=Silent(), title="")
    assert fit.accuracy > before
    constant = task.metric.constant(dataset.validation.y)
    sums = dataset.target_layout.split(dataset.validation.y)["sum"]
    # What answering 0 to everything gets, unless the task says what guessing gets.
    sides = dataset.target_layout.split(dataset.validation.y)["sides"]
    assert constant == pytest.approx(chance or ((sides == 0).mean() if share else np.abs(sums).mean()))
    # A narrower network learns from it, too.
    teacher = Distillation(fit.network, task=task)
    other = train(Two(), problem, regime, progress=Silent(), title="", distillation=teacher)
    assert other.accuracy > before


def test_a_score_of_many_examples_only(file: Path) -> None:
    dataset, task, _ = loaded(file, "Curve")
    y = dataset.train.y
    good = np.concatenate([np.zeros((270, 1)), dataset.train.x[:, :2]], 1).astype(np.float32)
    noisy = good + np.random.default_rng(0).normal(0, 2, good.shape).astype(np.float32)
    for answers in (good, noisy):
        assert task.metric.merits(answers, y).mean() == pytest.approx(task.metric.value(answers, y), abs=0.02)
    gains = task.metric.merits(good, y) - task.metric.merits(noisy, y)
    # What tells two networks apart (`pipeline.scaling.better`): these are, one and itself are not.
    assert gains.sum() > 3 * np.sqrt((gains**2).sum())
    shuffled = noisy[np.random.default_rng(1).permutation(270)]
    other = noisy[np.random.default_rng(2).permutation(270)]
    gains = task.metric.merits(shuffled, y) - task.metric.merits(other, y)
    assert abs(gains.sum()) < 3 * np.sqrt((gains**2).sum())


def test_a_step_of_ones_own(file: Path) -> None:
    dataset, task, network = loaded(file, "Steps")
    sets = [Batches(split, dataset.preprocessing) for split in (dataset.train, dataset.validation)]
    regime = Regime(epochs=6, learning_rate=0.01, batch_size=32, seed=0, taken="last")
    fit = train(network, Problem(sets[0], sets[1], task), regime, progress=Silent(), title="")
    x = sets[1].inputs(slice(None))
    # It learns what the step says, and not what the loss says.
    with torch.no_grad():
        assert fit.network(x)["sum"].abs().mean() < 0.3 * network(x)["sum"].abs().mean()


def test_targets_of_any_length_are_padded_by_collate(file: Path) -> None:
    dataset, task, _ = loaded(file, "Padding", "ragged")
    assert task.targets == Joined(("points", "count"), ((3, 2), ()), named=True, integers=(False, True))
    apart = dataset.target_layout.split(dataset.train.y)
    assert apart["points"].shape == (270, 3, 2)
    assert apart["count"].dtype == np.int64
    for points, count in zip(apart["points"], apart["count"], strict=True):
        assert np.count_nonzero(points.any(1)) == count


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Uneven", "y_train are .*, of y_test .*; pad both alike"),
        ("Large", r"id holds integers beyond 16,777,216"),
        ("Huge", r"too large for float32"),
        ("Fewer", r"collate makes \{'points': 299, 'count': 299\} of 300 targets"),
    ],
)
def test_collate_that_does_not_fit(file: Path, name: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        loaded(file, name, "ragged")
    with pytest.raises(DataError, match="points cannot become an array"):
        loaded(file, "Task", "ragged")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Nothing", "without a function 'score'"),
        ("Which", "expected better to be 'higher' or 'lower'"),
        ("Wild", "expected chance to be a number of 0 or more, got nan"),
    ],
)
def test_a_task_that_cannot_be(file: Path, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_own(f"{file}:{name}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Beyond", "score gives 30, expected a number between 0 and 1, where higher is better"),
        ("Breaks", "score fails at own.py line .*ZeroDivisionError"),
        ("Perfect", "answering 0 to everything gets a score of 0, the best there is; say what guessing gets"),
    ],
)
def test_a_score_that_cannot_be(file: Path, name: str, says: str) -> None:
    dataset, task, _ = loaded(file, name)
    with pytest.raises(UsageError, match=says):
        task.metric.constant(dataset.validation.y)


def test_a_loss_that_is_none(file: Path) -> None:
    dataset, task, network = loaded(file, "Words")
    batches = Batches(dataset.test, dataset.preprocessing)
    with pytest.raises(UsageError, match="loss gives str, expected a tensor of one number"):
        objective_of(task).loss(ask(network, batches.inputs(slice(None))), batches.y)


def test_what_is_learnt_hangs_on_the_file(file: Path) -> None:
    before = loaded(file, "Task")[1].key
    try:
        file.write_text(FILE + "\n# changed\n")
        assert loaded(file, "Task")[1].key != before
    finally:
        file.write_text(FILE)
