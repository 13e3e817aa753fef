from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.budget import Budget
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.measurement import Failure
from edgeprune.core.progress import Silent
from edgeprune.core.runtimes import Precision
from edgeprune.core.schema import TUNED_SCHEMA
from edgeprune.core.store import RunFolder
from edgeprune.core.trial import Candidate, Trial
from edgeprune.data.dataset import Dataset, Preprocessing, Split
from edgeprune.models.zoo import MLP, build
from edgeprune.pipeline import finetune, steps
from edgeprune.pipeline.config import RunConfig, make_config
from edgeprune.pipeline.finetune import Tuner, fine_tune, prune_and_tune, tuner_of
from edgeprune.pipeline.found import facts_of
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.search import Possible, Reference
from edgeprune.pipeline.rehearse import Shipped
from edgeprune.pipeline.scaling import Scaling
from edgeprune.pipeline.search import Searched
from edgeprune.pipeline.settings import settle
from edgeprune.pipeline.tuned import TunedNetworks, check_tuned
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut, mask
from edgeprune.pruning.widening import widen
from edgeprune.tasks.task import CLASSIFICATION
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import Fit
from edgeprune.training.problem import Problem
from edgeprune.training.regime import FINETUNE_DECAY, Regime, Taken

SHAPE = (1, 6, 6)
WIDTHS = {"inputs": 12, "fc1": 10, "fc2": 6}


class ByReaders:
    """Keeps the channels that their readers weigh most; repairs nothing."""

    def __init__(self, network: nn.Module, structure: Structure) -> None:
        self.network, self.structure = network, structure

    def plan(self, widths: dict[str, int]) -> PruningPlan:
        kept = {}
        for coupling in self.structure.couplings:
            if coupling.group.name not in widths:
                continue
            norms = torch.zeros(coupling.group.channels)
            for consumer in coupling.consumers:
                weight = weighted(self.network, consumer.layer).weight.detach()
                norms += torch.stack([weight[:, columns].abs().sum() for columns in map(list, consumer.columns)])
            order = norms.argsort(descending=True).tolist()
            kept[coupling.group.name] = tuple(sorted(order[: widths[coupling.group.name]]))
        return PruningPlan(kept)

    def weights(self, plan: PruningPlan) -> nn.Module:
        return mask(self.network, self.structure.couplings, plan)


def split(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = rng.normal(size=(count, *shape)).astype(np.float32)
    x.reshape(count, -1)[np.arange(count), y] += 3
    return Split(x, y.astype(np.int64))


def batches(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Batches:
    return Batches(split(count, shape, seed), Preprocessing(1.0, (0.0,) * shape[0], (1.0,) * shape[0]))


def network() -> nn.Module:
    torch.manual_seed(0)
    return MLP(36, (30, 20), 3).eval()


def regime(**how: Any) -> Regime:
    return Regime(**({"learning_rate": 2e-3, "batch_size": 16, "seed": 0, "weight_decay": FINETUNE_DECAY} | how))


def tuner(net: nn.Module, how: Regime, problem: Problem | None = None, clock: Callable[[], float] = monotonic) -> Tuner:
    problem = problem or Problem(batches(120), batches(60, seed=1))
    return Tuner(problem=problem, regime=how, teacher=Distillation(net), progress=Silent(), clock=clock)


def run(iterations: int = 1, seed: int = 0, clock=monotonic, **settings):  # type: ignore[no-untyped-def]
    net = network()
    structure = discover(net, SHAPE, runtime="onnxruntime", max_sparsity=0.9)
    if "minutes" not in settings:
        settings = {"epochs": 4} | settings
    how = tuner(net, regime(seed=seed, **settings), clock=clock)
    return prune_and_tune(net, structure, WIDTHS, ByReaders, how, iterations=iterations)


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_plan_speaks_of_the_original_channels(iterations: int) -> None:
    """With a learning rate of nothing the result is the original's own weights, in the channels the plan names."""
    before, fit, plan = run(iterations, learning_rate=1e-30)
    assert plan.widths == WIDTHS
    original, tuned = network(), fit.network
    kept = {name: list(indices) for name, indices in plan.kept.items()}
    assert tuned.fc1.kept.tolist() == kept["inputs"]
    assert torch.equal(tuned.fc1.linear.weight, original.fc1.weight[kept["fc1"]][:, kept["inputs"]])
    assert torch.equal(tuned.fc1.linear.bias, original.fc1.bias[kept["fc1"]])
    assert torch.equal(tuned.fc2.weight, original.fc2.weight[kept["fc2"]][:, kept["fc1"]])
    assert torch.equal(tuned.fc3.weight, original.fc3.weight[:, kept["fc2"]])
    assert before.fc1.linear.weight.shape == tuned.fc1.linear.weight.shape


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_cut_of_the_original_by_the_plan_takes_the_tuned_weights(iterations: int) -> None:
    _, fit, plan = run(iterations, learning_rate=1e-2)
    rebuilt = cut(network(), SHAPE, plan)
    rebuilt.load_state_dict(fit.network.state_dict())
    x = batches(20).inputs(slice(None))
    assert torch.equal(rebuilt(x), fit.network(x))


def test_what_was_tuned_in_between_is_what_the_next_step_ranks() -> None:
    ranked: list[nn.Module] = []

    class Watches(ByReaders):
        def __init__(self, network: nn.Module, structure: Structure) -> None:
            ranked.append(network)
            super().__init__(network, structure)

    net = network()
    structure = discover(net, SHAPE, runtime="onnxruntime", max_sparsity=0.9)
    how = tuner(net, regime(epochs=4, learning_rate=1e-2))
    prune_and_tune(net, structure, WIDTHS, Watches, how, iterations=2)
    assert ranked[0] is net
    assert len(ranked) == 3
    # Half of the way from 30, 20 to 10, 6, by the same factor: 17, 10; then the whole way; inputs not yet.
    for seen, width in zip(ranked[1:], (17, 10), strict=True):
        dead = (seen.fc1.weight == 0).all(1)
        assert int(dead.sum()) == 30 - width
        assert not (seen.fc1.weight == 0).all(0).any()
        assert torch.equal(dead, (seen.fc2.weight == 0).all(0))
        assert not torch.equal(seen.fc1.weight[~dead], net.fc1.weight[~dead])
    assert torch.equal(net.fc1.weight, network().fc1.weight)


@pytest.mark.parametrize("name", ["mobilenetv2-small", "lenet5"])
def test_a_widened_network_computes_what_the_pruned_one_does(name: str) -> None:
    shape = (3, 12, 12)
    torch.manual_seed(0)
    net = build(name, shape, 3).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    structure = discover(net, shape, runtime="onnxruntime", multiple_of=1)
    generator = torch.Generator().manual_seed(1)
    plan = PruningPlan(
        {
            g.name: tuple(sorted(torch.randperm(g.channels, generator=generator)[: g.channels // 2].tolist()))
            for g in structure.groups
        }
    )
    pruned = cut(net, shape, plan).eval()
    wide = widen(net, structure, plan, pruned)
    x = torch.randn(4, *shape, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(wide(x), pruned(x), rtol=1e-4, atol=1e-4)
    again, given = cut(wide, shape, plan).state_dict(), pruned.state_dict()
    assert again.keys() == given.keys()
    assert all(torch.equal(again[name], given[name]) for name in given)


@pytest.mark.parametrize(("epochs", "iterations"), [(1, 1), (4, 1), (4, 2), (5, 3), (4, 4)])
def test_all_steps_together_have_the_epochs(epochs: int, iterations: int) -> None:
    _, fit, _ = run(iterations, epochs=epochs)
    assert len(fit.history) == fit.epochs == epochs


@pytest.mark.parametrize(
    ("widths", "iterations", "epochs", "way"),
    [
        ({"inputs": 12, "fc1": 10}, 1, 4, [{"fc1": 10}, {"inputs": 12, "fc1": 10}]),
        ({"inputs": 12, "fc1": 10}, 2, None, [{"fc1": 17}, {"fc1": 10}, {"inputs": 12, "fc1": 10}]),
        ({"inputs": 12, "fc1": 10}, 1, 1, [{"inputs": 12, "fc1": 10}]),
        ({"inputs": 12, "fc1": 10}, 2, 2, [{"inputs": 20, "fc1": 17}, {"inputs": 12, "fc1": 10}]),
        ({"inputs": 12}, 1, 4, [{"inputs": 12}]),
        ({"inputs": 36, "fc1": 10}, 1, 4, [{"inputs": 36, "fc1": 10}]),
        ({"fc1": 10}, 2, 4, [{"fc1": 17}, {"fc1": 10}]),
    ],
)
def test_inputs_go_last(
    widths: dict[str, int],
    iterations: int,
    epochs: int | None,
    way: list[dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, int]] = []
    plan_of = ByReaders.plan

    def plan(self: ByReaders, wanted: dict[str, int]) -> PruningPlan:
        asked.append(dict(wanted))
        return plan_of(self, wanted)

    monkeypatch.setattr(ByReaders, "plan", plan)
    net = network()
    structure = discover(net, SHAPE, runtime="onnxruntime", max_sparsity=0.9)
    how = tuner(net, regime(epochs=epochs, minutes=0.01 if epochs is None else None))
    prune_and_tune(net, structure, widths, ByReaders, how, iterations=iterations)
    # The first is that of the network pruned in one step.
    assert asked == [widths, *way]


def test_three_quarters_of_the_epochs_are_the_last_steps() -> None:
    shares = [[steps.epochs_of(epochs, step, 3) for step in (1, 2, 3)] for epochs in (40, 5, 3)]
    assert shares == [[5, 5, 30], [1, 1, 3], [1, 1, 1]]
    assert [steps.epochs_of(60, step, 2) for step in (1, 2)] == [15, 45]


def test_three_quarters_of_the_minutes_are_the_last_steps() -> None:
    left, spent = 1.0, []
    for step in (1, 2, 3):
        spent.append(left * steps.share_of(step, 3))
        left -= spent[-1]
    assert spent == pytest.approx([1 / 8, 1 / 8, 3 / 4])


def test_more_steps_than_epochs_cannot_be() -> None:
    with pytest.raises(UsageError, match="3 iterations are not between 1 and 2, the epochs there are; change --iter"):
        run(3, epochs=2)
    with pytest.raises(UsageError, match="0 iterations"):
        run(0, minutes=1.0)


@pytest.mark.parametrize("iterations", [1, 2])
def test_minutes_are_for_all_steps_together(iterations: int) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.25
        return now

    _, fit, plan = run(iterations, minutes=1.0, clock=clock)
    assert 50 < now < 65
    assert plan.widths == WIDTHS
    # 120 images make 8 batches, each looks at the clock once.
    assert 15 < fit.epochs < 30


def test_one_seed_one_result() -> None:
    one, two, other = (run(2, seed=seed)[1].network.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_batch_norm_is_recalibrated_after_surgery() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
            self.norm, self.last = nn.BatchNorm2d(8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.norm(self.second(torch.relu(self.first(x))))).mean((2, 3)))

    torch.manual_seed(0)
    net = Net().eval()
    structure = discover(net, SHAPE, runtime="onnxruntime", multiple_of=1)
    data = batches(120)
    how = tuner(net, regime(epochs=0), Problem(data, data))
    before, _, _ = prune_and_tune(net, structure, {"first": 4, "second": 8}, ByReaders, how)
    with torch.no_grad():
        passed = before.second(torch.relu(before.first(data.inputs(slice(None)))))
    torch.testing.assert_close(before.norm.running_mean, passed.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(before.norm.running_var, passed.transpose(0, 1).flatten(1).var(1), rtol=1e-4, atol=1e-5)


def prepared(config: RunConfig, prune_inputs: bool = True, epochs: int = 10) -> Prepared:
    net = network()
    preprocessing = Preprocessing(1.0, (0.0,), (1.0,))
    splits = (split(120), split(60, seed=1), split(9, seed=2))
    dataset = Dataset("toy", *splits, ("a", "b", "c"), preprocessing, "")
    train_set, validation = (Batches(part, preprocessing) for part in splits[:2])
    structure = discover(net, SHAPE, runtime="onnxruntime", max_sparsity=0.9, prune_inputs=prune_inputs)
    facts = facts_of(dataset, net, structure, "onnxruntime")
    settled = settle(config, facts)
    schedule = replace(
        settled.schedule, finetune_epochs=epochs, batch_size=16, temperature=config.temperature or 1.0, rounds=None,
        finalist_share=0.2, augmentation=None,
    )  # fmt: skip
    settled = replace(settled, schedule=schedule)
    shipped = Shipped(("onnx", "tflite"))
    scaling = Scaling(preprocessing, "data")
    return Prepared(
        dataset, train_set, validation, net, structure, facts, settled, CLASSIFICATION, "toy", 0.3, {}, scaling, shipped
    )


class Stage(Protocol):
    def __call__(
        self,
        config: RunConfig,
        said: list[str] | None = None,
        *,
        inputs: bool = True,
        epochs: int = 10,
        trials: int = 2,
        taken: Taken = "best",
        quality: Callable[[nn.Module, Precision], float] | None = None,
    ) -> finetune.Tuned: ...


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """The whole stage; what it tunes is kept from call to call."""

    def run(
        config: RunConfig,
        said: list[str] | None = None,
        *,
        inputs: bool = True,
        epochs: int = 10,
        trials: int = 2,
        taken: Taken = "best",
        quality: Callable[[nn.Module, Precision], float] | None = None,
    ) -> finetune.Tuned:
        ready = replace(prepared(config, inputs, epochs), taken=taken)
        criterion = ByReaders(ready.network, ready.structure)
        lost, names = Failure("lost", "", False), [group.name for group in ready.structure.groups]
        widths = (WIDTHS, {"inputs": 14, "fc1": 13, "fc2": 4}, {"inputs": 20, "fc1": 16, "fc2": 3})
        tried = [
            Trial(index, Candidate(criterion.plan({name: each[name] for name in names}), 0.5, 3.0, lost, 1), 1.0, 0.0)
            for index, each in enumerate(widths[:trials])
        ]
        if quality is not None:
            tried[0] = replace(tried[0], candidate=replace(tried[0].candidate, precision="int8"))
        watch = Silent()
        if said is not None:
            watch.say = said.append  # type: ignore[method-assign]
        possible = Possible(9.0, 0.1, 0.1, Reference(1.0, 1, 1), 1)
        searched = Searched(tried, Budget(), possible, criterion, SUMMARY, chance=0.0, images=60)
        networks = TunedNetworks(RunFolder(tmp_path), ready.network, SHAPE)
        return fine_tune(ready, searched, ByReaders, networks, tuner_of(ready, watch), quality)

    return run


#: How the trials were found is not looked at here.
SUMMARY: Any = None


def recorded(monkeypatch: pytest.MonkeyPatch, option: str) -> list[Any]:
    """What every training's regime says of one option."""
    told: list[Any] = []
    real = finetune.train

    def watch(start: nn.Module, problem: Problem, how: Regime, **options: Any) -> Fit:
        told.append(getattr(how, option))
        return real(start, problem, how, **options)

    monkeypatch.setattr(finetune, "train", watch)
    return told


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of every training."""
    return recorded(monkeypatch, "epochs")


def test_the_stage_tunes_a_trial_at_its_widths(stage: Stage) -> None:
    said: list[str] = []
    tuned = stage(RunConfig(iterations=2), said)
    assert tuned.plan.widths == tuned.trial.candidate.plan.widths
    assert tuned.fit.epochs == 10
    assert len([line for line in said if "in 2 epochs" in line]) == 2
    cut(network(), SHAPE, tuned.plan).load_state_dict(tuned.fit.network.state_dict())


@pytest.mark.parametrize(("worth", "winner"), [(1.0, 0), (0.0, 1)])
def test_finalists_are_compared_by_what_ships(stage: Stage, worth: float, winner: int) -> None:
    """The first one's file is of integers: its network may be as good as it likes."""
    asked: list[str] = []

    def quality(_: nn.Module, precision: Precision) -> float:
        asked.append(precision)
        return worth

    said: list[str] = []
    assert stage(RunConfig(iterations=1), said, inputs=False, quality=quality).trial.index == winner
    assert asked == ["int8"]
    assert any("as a file of int8" in line for line in said)


@pytest.mark.parametrize("winner", [0, 1])
def test_the_winner_goes_on_from_its_finalist(stage: Stage, monkeypatch: pytest.MonkeyPatch, winner: int) -> None:
    trained: list[tuple[nn.Module, finetune.Fit]] = []
    real = finetune.train

    def watch(start: nn.Module, *args, **options):  # type: ignore[no-untyped-def]
        fit = real(start, *args, **options)
        if len(trained) < 2:
            fit = replace(fit, accuracy=float(len(trained) == winner))
        trained.append((start, fit))
        return fit

    monkeypatch.setattr(finetune, "train", watch)
    tuned = stage(RunConfig(), inputs=False)
    assert tuned.trial.index == winner
    assert [len(fit.history) for _, fit in trained] == [2, 2, 8]
    assert trained[2][0] is trained[winner][1].network
    assert tuned.fit.history == trained[winner][1].history + trained[2][1].history
    assert tuned.fit.epochs == 10
    cut(network(), SHAPE, tuned.plan).load_state_dict(tuned.fit.network.state_dict())


def test_what_is_pruned_in_steps_begins_again_as_the_winner(stage: Stage, trained: list[int]) -> None:
    # A quarter of the epochs of each is before its inputs go.
    assert stage(RunConfig()).fit.epochs == 10
    assert trained == [1, 1, 1, 1, 2, 8]
    trained.clear()
    assert stage(RunConfig(iterations=2), inputs=False).fit.epochs == 10
    assert trained == [2, 2, 2, 8]


@pytest.mark.parametrize("taken", ["best", "last"])
@pytest.mark.parametrize("inputs", [True, False], ids=["in steps", "going on"])
def test_every_training_takes_the_epoch_that_was_settled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, inputs: bool, taken: Taken
) -> None:
    told = recorded(monkeypatch, "taken")
    stage(RunConfig(), inputs=inputs, taken=taken)
    assert set(told) == {taken}


def same(one: finetune.Tuned, two: finetune.Tuned) -> bool:
    states = [each.fit.network.state_dict() for each in (one, two)]
    facts = [(each.trial.index, each.plan, each.fit.history, each.fit.epochs) for each in (one, two)]
    return facts[0] == facts[1] and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("inputs", [True, False])
def test_nothing_is_tuned_twice(stage: Stage, trained: list[int], inputs: bool) -> None:
    first = stage(RunConfig(), inputs=inputs)
    trained.clear()
    again = stage(RunConfig(), inputs=inputs)
    assert trained == []
    assert same(first, again)
    x = batches(20).inputs(slice(None))
    assert torch.equal(again.before(x), first.before(x))


@pytest.mark.parametrize("inputs", [True, False])
def test_a_stage_that_was_interrupted_ends_like_one_that_was_not(
    stage: Stage, trained: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inputs: bool
) -> None:
    whole = stage(RunConfig(), inputs=inputs)
    shutil.rmtree(tmp_path / "tuned")
    calls, counted = len(trained), finetune.train
    for left in range(1, calls):

        def halting(*args, left=left, **options):  # type: ignore[no-untyped-def]
            if len(trained) == left:
                raise KeyboardInterrupt
            return counted(*args, **options)

        trained.clear()
        monkeypatch.setattr(finetune, "train", halting)
        with pytest.raises(KeyboardInterrupt):
            stage(RunConfig(), inputs=inputs)
        # Every time one training more gets done; a network is kept once all of its steps are.
        monkeypatch.setattr(finetune, "train", counted)
        kept = len(list((tmp_path / "tuned").glob("*.json"))) if (tmp_path / "tuned").exists() else 0
        trained.clear()
        assert same(stage(RunConfig(), inputs=inputs), whole)
        assert len(trained) == calls - (2 if inputs else 1) * kept
        shutil.rmtree(tmp_path / "tuned")


@pytest.mark.parametrize("inputs", [True, False])
def test_more_epochs_are_only_those_that_are_missing(stage: Stage, trained: list[int], inputs: bool) -> None:
    first = stage(RunConfig(), inputs=inputs)
    trained.clear()
    more = stage(RunConfig(), inputs=inputs, epochs=13)
    assert trained == [3]
    assert more.trial.index == first.trial.index
    assert more.fit.epochs == 13
    assert more.fit.history[:10] == first.fit.history
    assert more.fit.accuracy >= first.fit.accuracy
    trained.clear()
    assert same(stage(RunConfig(), inputs=inputs, epochs=13), more)
    assert trained == []


def test_who_goes_on_sees_what_it_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a finalist's part the winner's images begin where that ended, by the schedule's rounds."""
    seen: list[tuple[float, float]] = []

    def spied(network: nn.Module, _: Problem, how: Regime, *, begun: float, **__: object) -> Fit:
        seen.append((how.amount, begun))
        return Fit(network, 0.5, (0.5,), how.amount)

    monkeypatch.setattr(finetune, "train", spied)
    one = prepared(RunConfig())
    rounds = replace(one.settled, schedule=replace(one.schedule, rounds=3))
    how = tuner_of(replace(one, settled=rounds), Silent())
    assert how.teacher.rounds == 3
    fit = finetune.go_on(Fit(one.network, 0.4, (0.4,), 0.5), how.by(regime(epochs=7.5)))
    assert seen == [(7.5, 0.5)]
    assert fit.epochs == 8


def test_more_finalists_are_tuned_as_the_others_were(stage: Stage, trained: list[int]) -> None:
    first = stage(RunConfig(finalists=2), inputs=False, trials=3)
    assert trained == [2, 2, 8]
    trained.clear()
    # The epochs rise as well: the new one is compared with the others after as many as these had.
    more = stage(RunConfig(finalists=3), inputs=False, trials=3, epochs=20)
    new = more.trial.index == 2
    assert trained == [2, 18 if new else 10]
    assert more.fit.epochs == 20
    assert new or more.fit.history[:10] == first.fit.history


def test_damaged_networks_are_one_line_before_anything_long(stage: Stage, tmp_path: Path) -> None:
    stage(RunConfig(), inputs=False)
    folder = RunFolder(tmp_path)
    assert check_tuned(folder) == 10
    for path in sorted((tmp_path / "tuned").iterdir()):
        whole = path.read_bytes()
        turned = whole[:-1] + bytes([whole[-1] ^ 1])
        for damaged in (whole[:-9], b"", turned if path.suffix == ".safetensors" else b"{}"):
            path.write_bytes(damaged)
            with pytest.raises(StorageError, match=f"{path.name}.*; remove the run's folder tuned, and"):
                check_tuned(folder)
        path.write_bytes(whole)
    note = next((tmp_path / "tuned").glob("*.json"))
    note.write_text(note.read_text().replace(f'"schema": {TUNED_SCHEMA}', '"schema": 9'))
    with pytest.raises(UsageError, match="written by a newer edgeprune"):
        check_tuned(folder)


def test_the_stage_takes_its_settings_from_the_options(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tuner] = []
    real = finetune.prune_and_tune

    def watch(net: nn.Module, structure: Structure, widths: Any, make: Any, how: Tuner, **options: Any) -> Any:
        seen.append(how)
        return real(net, structure, widths, make, how.by(replace(how.regime, epochs=1, minutes=None)), **options)

    monkeypatch.setattr(finetune, "prune_and_tune", watch)
    stage(RunConfig(finetune_minutes=7, distillation=0.2, temperature=5.0, finalists=2))
    assert [how.regime.minutes for how in seen] == [1.0, 1.0, 5.0]
    assert {(how.teacher.share, how.teacher.temperature, how.regime.epochs) for how in seen} == {(0.2, 5.0, None)}


def test_finalists_and_winner_share_the_minutes() -> None:
    for share, finalists, goes_on in ((1 / 5, 3, True), (1 / 5, 3, False), (1 / 16, 2, True)):
        short, winner = steps.shares(regime(minutes=7.0), share, finalists, goes_on=goes_on)
        assert short.minutes is not None
        assert winner.minutes is not None
        assert short.minutes == pytest.approx(share * winner.minutes)
        # The winner has had its time as a finalist.
        assert (finalists - goes_on) * short.minutes + winner.minutes == pytest.approx(7)


@pytest.mark.parametrize(
    ("share", "epochs", "short"), [(1 / 5, 60, 12), (1 / 5, 33, 6), (1 / 16, 8, 0.5), (1 / 16, 40, 2)]
)
def test_a_finalist_gets_whole_epochs_or_half_of_one(share: float, epochs: float, short: float) -> None:
    first, winner = steps.shares(regime(epochs=epochs), share, 3, goes_on=True)
    assert (first.epochs, winner.epochs) == (short, epochs)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"finetune_epochs": 3, "finetune_minutes": 1}, "--finetune-epochs and --finetune-minutes exclude each other"),
        ({"finetune_minutes": 0}, "--finetune-minutes must be above 0"),
        ({"distillation": 1.5}, "--distillation must be between 0 and 1"),
        ({"temperature": 0}, "--temperature must be between 0.001 and 1000"),
        ({"iterations": 0}, "--iterations must be between 1 and 10"),
        ({"iterations": 11}, "--iterations must be between 1 and 10"),
        ({"iterations": 3, "finetune_epochs": 2}, "--iterations must be .* at most --finetune-epochs"),
        ({"augmentation": "some"}, "augmentation: .*'some'"),
    ],
)
def test_wrong_options_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_config(values, "f")


@pytest.mark.parametrize("times", [{}, {"epochs": 1, "minutes": 1.0}])
def test_a_schedule_is_epochs_or_minutes(times: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="either epochs or minutes"):
        regime(**times)
