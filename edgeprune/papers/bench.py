"""`bench paper`: the papers' networks, every method on the same footing, one file per finished cell.

What all methods share: data and split, the unpruned network, the fine-tuning (distillation from that network, the same
epochs and augmentation, validation picks the epoch) and the rule that picks a plan: of those that reach the NCR, the
one with the highest validation accuracy. The test set is read when a cell is finished, and never before.

FOLDER/
├── .lock, .owner                     who writes here now (see `core.lock`)
├── bench.json                        what is compared; a folder holds one data set and one set of settings
├── baseline-S.json                   the unpruned network of seed S
├── cells/LABEL-S.json                a finished cell
├── weights/*.safetensors             full-size weights of either, zeros where something went
├── evals/N/METHOD-S.json, evals.json, sparsity.json     the comparison at N evaluations
└── beta.json                         the sweep of beta
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.files import storing, write_json
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.models.weights import save_weights
from edgeprune.papers import methods as baselines
from edgeprune.papers.bench_config import COMPARED, UNPRUNED, BenchConfig, Label, parse_label, target
from edgeprune.papers.records import (
    Agents,
    BetaPoint,
    BetaSweep,
    Cell,
    Compared,
    Evaluations,
    Searched,
    SparsityTrial,
    read_file,
)
from edgeprune.papers.workbench import (
    BATCH_SIZE,
    Ground,
    Workbench,
    check_settings,
    make_ground,
    origin,
    owned,
)
from edgeprune.pipeline.finetune import Tuner, prune_and_tune
from edgeprune.pruning.cost import count_macs
from edgeprune.pruning.structure import check_reachable
from edgeprune.pruning.surgery import cut
from edgeprune.pruning.widening import widen
from edgeprune.search.drive import SearchResult
from edgeprune.search.environment import Episode
from edgeprune.search.methods import METHODS, Method
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import Fit, score
from edgeprune.training.narrow import narrow
from edgeprune.training.regime import FINETUNE_DECAY, Regime

#: Values of beta for the paper's figure 4.
BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a method made: a network cut to size, not yet fine-tuned, and how it came about."""

    network: nn.Module
    plan: PruningPlan
    seconds: float
    ncr: float | None = None
    epochs: int = 0
    evaluations: int = 0
    rewards: tuple[float, ...] = ()
    result: SearchResult = field(default_factory=lambda: SearchResult(0))
    criterion: str | None = None
    repair: bool = False


def run_bench(config: BenchConfig, progress: Progress) -> list[str]:
    """Run what is not finished yet in `config.out`; what is there is not run again. The folder is locked meanwhile.

    Returns why rows were left out, a line each. Raises UsageError for settings that are not those the folder was made
    with, and where another process is at it, DataError, StorageError.
    """
    with owned(config.out, progress):
        return _rows(config, progress)


def _rows(config: BenchConfig, progress: Progress) -> list[str]:
    """`run_bench`, in a folder that is this process's alone."""
    folder = config.out
    check_settings(folder, config.asked)
    labels = [parse_label(text) for text in dict.fromkeys(config.rows)]
    left_out: list[str] = []
    for seed in range(config.seeds):
        if config.budget_evals is not None:
            missing = [name for name in COMPARED if not _eval_file(config, name, seed).exists()]
            if missing:
                bench = Workbench(make_ground(config, seed, progress), progress)
                for name in missing:
                    progress.stage(f"{name} at {config.budget_evals} evaluations, seed {seed}")
                    _compare(config, name, bench)
            continue
        rows = [label for label in labels if not _cell_file(folder, label, seed).exists()]
        sweep = config.sweeps and seed == 0 and not (folder / "beta.json").exists()
        if rows or sweep:
            bench = Workbench(make_ground(config, seed, progress), progress)
            for label in rows:
                progress.stage(f"{label.text}, seed {seed}")
                try:
                    outcome = _outcome(config, label, bench, progress)
                except UsageError as error:
                    # A rate that this method does not come to: the other rows are worth having without it.
                    left_out.append(f"left out: {label.text}, seed {seed}: {error}")
                    progress.say(left_out[-1])
                    continue
                _finish(config, label, bench, outcome, progress)
            if sweep:
                progress.stage("beta")
                _sweep(config, bench)
    if config.budget_evals is not None:
        _gather(config)
    return left_out


def _cell_file(folder: Path, label: Label, seed: int) -> Path:
    return folder / "cells" / f"{label.text}-{seed}.json"


def _eval_file(config: BenchConfig, name: str, seed: int) -> Path:
    return config.out / "evals" / str(config.budget_evals) / f"{name}-{seed}.json"


def _outcome(config: BenchConfig, label: Label, bench: Workbench, progress: Progress) -> Outcome:
    """What the row's method makes. Raises UsageError for a rate that it does not come to."""
    ground, ncr = bench.ground, target(config, label)
    if label.method == UNPRUNED:
        return Outcome(network=deepcopy(ground.network), plan=PruningPlan({}), seconds=0.0)
    if label.method in baselines.METHODS:
        return _trained(label, ncr, ground, progress)
    return _searched(label, ncr, config.episodes, bench)


def _trained(label: Label, ncr: float, ground: Ground, progress: Progress) -> Outcome:
    """A method that trains while it prunes; it gets as many epochs for that as the unpruned network had."""
    started = time.monotonic()
    recipe = baselines.Recipe(
        epochs=ground.train_epochs, learning_rate=ground.learning_rate, batch_size=BATCH_SIZE, seed=ground.seed
    )
    made = baselines.METHODS[label.method](
        ground.network, ground.structure, ground.train, ground.validation, ncr=ncr, recipe=recipe, progress=progress
    )
    network = cut(made.network, ground.structure.shape, made.plan, ground.structure.graph)
    seconds = time.monotonic() - started
    return Outcome(network=network, plan=made.plan, seconds=seconds, ncr=ncr, epochs=made.epochs)


def _searched(label: Label, ncr: float, episodes: int, bench: Workbench) -> Outcome:
    ground, method = bench.ground, METHODS[label.method]
    if method.bound:
        check_reachable(ground.structure.groups, ground.structure.neurons(ground.network), ncr)
    criterion = label.criterion or method.criterion
    found, result, scorer, seconds = bench.search(method, criterion, ncr=ncr, episodes=method.times * episodes)
    plan = pick(found, ncr).candidate.plan
    ranked, _ = bench.criterion(criterion, method.repair)
    return Outcome(
        network=narrow(ranked, ground.structure, plan, ground.train, check=ground.validation.inputs(slice(0, 16))),
        plan=plan,
        seconds=seconds,
        ncr=ncr,
        evaluations=scorer.count,
        rewards=tuple(episode.reward for episode in found),
        result=result,
        criterion=criterion,
        repair=method.repair,
    )


def pick(episodes: list[Episode], ncr: float) -> Episode:
    """The most accurate of those that reach the NCR; where none does, the one that comes nearest."""
    reached = [episode for episode in episodes if episode.candidate.ncr >= ncr]
    if reached:
        return max(reached, key=lambda episode: episode.candidate.accuracy)
    return max(episodes, key=lambda episode: episode.candidate.ncr)


def _finish(config: BenchConfig, label: Label, bench: Workbench, outcome: Outcome, progress: Progress) -> None:
    """Fine-tune as everyone is, score on the test set, write the cell."""
    started, ground, structure = time.monotonic(), bench.ground, bench.ground.structure
    before = score(outcome.network, ground.test)
    fit, plan = _tune(label, bench, outcome, progress)
    accuracy = score(fit.network, ground.test)
    widths = {g.name: plan.widths.get(g.name, g.channels) for g in structure.groups}
    ncr = structure.neurons(ground.network) / structure.neurons(fit.network)
    weights = f"weights/{label.text}-{ground.seed}.safetensors"
    wide = widen(ground.network, structure, plan, fit.network) if plan.kept else fit.network
    save_weights(config.out / weights, wide)
    share = count_macs(fit.network, structure.shape) / count_macs(ground.network, structure.shape)
    cell = Cell(
        **origin(),
        method=label.text,
        seed=ground.seed,
        widths=widths,
        ncr=ncr,
        ncr_target=outcome.ncr,
        macs_share=share,
        baseline_accuracy=ground.accuracy,
        accuracy_before=before,
        accuracy=accuracy,
        error=100 * (ground.accuracy - accuracy),
        validation_accuracy=fit.accuracy,
        search_seconds=round(outcome.seconds, 2),
        finetune_seconds=round(time.monotonic() - started, 2),
        method_epochs=outcome.epochs,
        finetune_epochs=ground.finetune_epochs,
        evaluations=outcome.evaluations,
        agent_sparsity=outcome.result.agent_sparsity,
        rewards=outcome.rewards,
        losses=outcome.result.losses,
        criterion=outcome.criterion,
        repair=outcome.repair,
        weights=weights,
    )
    write_json(_cell_file(config.out, label, ground.seed), to_json(cell))
    layers = "-".join(map(str, widths.values()))
    progress.say(f"{layers}: NCR {ncr:.2f}, error {cell.error:.2f} points, search {outcome.seconds:.1f} s")


def _tune(label: Label, bench: Workbench, outcome: Outcome, progress: Progress) -> tuple[Fit, PruningPlan]:
    """The tuned network, and what it keeps.

    Searches that share our criterion prune and tune as the product does, inputs last; the papers' own methods are done
    with pruning, and tuned for as many epochs.
    """
    ground = bench.ground
    regime = Regime(
        epochs=ground.finetune_epochs,
        learning_rate=ground.learning_rate,
        batch_size=BATCH_SIZE,
        seed=ground.seed,
        weight_decay=FINETUNE_DECAY,
        augmentation=Augmentation.fit(ground.structure.shape, mirrors=ground.dataset.mirrors),
    )
    tuner = Tuner(problem=ground.problem, regime=regime, teacher=Distillation(ground.network), progress=progress)
    if label.method in METHODS and METHODS[label.method].tuned:
        assert outcome.criterion is not None
        ranks = bench.ranks(outcome.criterion, outcome.repair)
        _, fit, plan = prune_and_tune(ground.network, ground.structure, outcome.plan.widths, ranks, tuner)
        return fit, plan
    return tuner(outcome.network, "fine-tuning"), outcome.plan


def _compare(config: BenchConfig, name: str, bench: Workbench) -> None:
    """One search of the comparison: the best reward so far after every evaluation.

    Criterion, repair and scoring are the same for all, so that only the searches differ.
    """
    assert config.budget_evals is not None
    method = METHODS[name]
    fair = Method(search=method.search, states=method.states)
    ncr = config.ncr
    episodes, result, _, seconds = bench.search(fair, fair.criterion, ncr=ncr, episodes=config.budget_evals)
    # A plan that misses the NCR is no answer, however accurate.
    rewards = [e.reward if e.candidate.ncr >= ncr else 0.0 for e in episodes]
    curve = [max(rewards[: index + 1]) for index in range(len(rewards))]
    path = _eval_file(config, name, bench.ground.seed)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    best = pick(episodes, ncr).candidate
    found = Compared(
        **origin(),
        method=name,
        seed=bench.ground.seed,
        curve=tuple(curve),
        widths=best.plan.widths,
        accuracy=best.accuracy,
        seconds=round(seconds, 2),
        agent_sparsity=result.agent_sparsity,
    )
    write_json(path, to_json(found))


def _gather(config: BenchConfig) -> None:
    """evals.json and sparsity.json of all seeds that the comparison has."""
    path = config.out / "evals.json"
    budget = config.budget_evals
    assert budget is not None
    known = {*range(config.seeds), *(read_file(path, Evaluations).seeds if path.exists() else ())}
    seeds = [seed for seed in sorted(known) if all(_eval_file(config, name, seed).exists() for name in COMPARED)]
    found = {name: [read_file(_eval_file(config, name, seed), Compared) for seed in seeds] for name in COMPARED}
    methods = {
        name: Searched(final=tuple(one.curve[-1] for one in each), curves=tuple(one.curve for one in each))
        for name, each in found.items()
    }
    write_json(path, to_json(Evaluations(budget=budget, seeds=tuple(seeds), methods=methods)))

    def agents(name: str) -> Agents:
        return Agents(
            methods[name].final, tuple(one.agent_sparsity for one in found[name] if one.agent_sparsity is not None)
        )

    trial = SparsityTrial(penalty=agents("edgeprune"), none=agents("edgeprune-noprox"))
    write_json(config.out / "sparsity.json", to_json(trial))


def _sweep(config: BenchConfig, bench: Workbench) -> None:
    """The paper's figure 4: what the best plan by reward comes to when only the reward asks for the NCR."""
    method = METHODS["edgeprune"]
    # Twice the rate of the table: within easy reach there is nothing to balance.
    ncr = 2 * config.ncr
    points = []
    for beta in BETAS:
        episodes, *_ = bench.search(method, method.criterion, ncr=ncr, episodes=config.episodes, beta=beta, bound=False)
        best = max(episodes, key=lambda episode: episode.reward).candidate
        points.append(BetaPoint(beta, best.accuracy, best.ncr))
    swept = BetaSweep(method="edgeprune", seed=bench.ground.seed, points=tuple(points))
    write_json(config.out / "beta.json", to_json(swept))
