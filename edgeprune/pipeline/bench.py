"""`bench paper`: the papers' networks, every method on the same footing, one file per finished cell.

What all methods share: data and split, the unpruned network, the fine-tuning (distillation from that network, the same
epochs and augmentation, validation picks the epoch) and the rule that picks a plan: of those that reach the NCR, the
one with the highest validation accuracy. The test set is read when a cell is finished, and never before.

FOLDER/
├── bench.json                        what is compared; a folder holds one data set and one set of settings
├── baseline-S.json                   the unpruned network of seed S
├── cells/LABEL-S.json                a finished cell
├── weights/*.safetensors             full-size weights of either, zeros where something went
├── evals/N/METHOD-S.json, evals.json, sparsity.json     the comparison at N evaluations
└── beta.json                         the sweep of beta
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from edgeprune import baselines
from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.core.files import read_json, storing, write_bytes, write_json
from edgeprune.core.progress import Progress
from edgeprune.core.types import PruningPlan
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset
from edgeprune.models.source import make_model
from edgeprune.pipeline.criterion import CRITERIA, make_criterion
from edgeprune.pipeline.finetune import widen
from edgeprune.pipeline.scoring import Scoring
from edgeprune.pruning.cost import count_macs
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut, prune
from edgeprune.search.algorithm import SearchResult
from edgeprune.search.environment import Environment, Episode
from edgeprune.search.methods import METHODS, Method
from edgeprune.search.reward import Candidate, Reward, Widths
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.brief import BriefTuning
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import FINETUNE_DECAY, score, train

#: What the files' "schema" says (see docs/interfaces.md).
SCHEMA = 1
#: The control: the unpruned network, given the fine-tuning that every method gets.
UNPRUNED = "unpruned"
#: Every row that can be asked for, and those of the table.
KNOWN = (UNPRUNED, *baselines.METHODS, *METHODS)
TABLE = tuple(name for name in KNOWN if name != "edgeprune-noprox")
#: Methods that are compared at equal evaluations.
COMPARED = ("edgeprune", "edgeprune-noprox", "amc", "greedy", "random", "uniform")
#: NCR to reach where no published row says one.
NCR = 3.0
#: Training images that criteria look at; steps that a candidate is tuned for before it is scored.
CALIBRATION_IMAGES, BRIEF_STEPS = 8000, 100
#: Values of beta for the paper's figure 4.
BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
#: Peak learning rates of networks under and over `BIG` parameters.
LEARNING_RATE, BIG_LEARNING_RATE = 2e-3, 4e-4
BATCH_SIZE = 128
#: Methods that train get half the epochs of fine-tuning for that, and no fewer than these.
OWN_EPOCHS = 10
#: Parameters from which a network is trained for a third of the epochs: longer training only fits it closer to the
#: training images.
BIG = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """Settings of `bench paper`. Epochs None: 30 and 40, a third of that for networks of over a million parameters."""

    data: str = "mnist"
    data_dir: Path | None = None
    methods: tuple[str, ...] = TABLE
    seeds: int = 3
    episodes: int = 80
    train_epochs: int | None = None
    finetune_epochs: int | None = None
    #: The published table this is held against; "" for data of one's own.
    published: str = ""
    #: NCR to reach per method; "" is for those that are not named.
    targets: Mapping[str, float] = field(default_factory=dict)
    #: Compare searches at so many evaluations instead of running the table's rows.
    budget_evals: int | None = None
    #: Sweep beta as well.
    beta: bool = False
    out: Path = Path("bench/mnist")

    def __post_init__(self) -> None:
        for name in ("seeds", "episodes", "train_epochs", "finetune_epochs", "budget_evals"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1", "see edgeprune bench paper --help")
        if self.budget_evals is not None and self.budget_evals < 10:
            raise UsageError("--budget-evals must be at least 10", "searches need a few candidates to differ")
        for label in self.methods:
            parse_label(label)


@dataclass(frozen=True, slots=True)
class Label:
    """A row: `METHOD[@NCR][+CRITERION]`, as `edgeprune@5` or `random+taylor`."""

    text: str
    method: str
    ncr: float | None
    criterion: str | None


def parse_label(text: str) -> Label:
    """Read a row's name. Raises UsageError."""
    rest, _, criterion = text.partition("+")
    method, _, rate = rest.partition("@")
    if method not in KNOWN:
        raise UsageError(f"unknown method '{method}'", did_you_mean(method, KNOWN))
    if criterion and criterion not in CRITERIA:
        raise UsageError(f"'{text}': unknown criterion '{criterion}'", did_you_mean(criterion, CRITERIA))
    if criterion and method not in METHODS:
        raise UsageError(f"'{text}': {method} has no criterion", f"write {rest}")
    try:
        ncr = float(rate) if rate else None
    except ValueError:
        ncr = 0.0
    if ncr is not None and not 1 < ncr < 1000:
        raise UsageError(f"'{text}': '{rate}' is no neuron compression rate", "write for example edgeprune@5")
    return Label(text, method, ncr, criterion or None)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all cells of one seed stand on."""

    seed: int
    dataset: Dataset
    train: Batches
    validation: Batches
    test: Batches
    network: nn.Module
    structure: Structure
    #: Shares the unpruned network classifies right, of test and of validation images.
    accuracy: float
    validation_accuracy: float
    finetune_epochs: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
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


class Scorer:
    """`evaluate` of the search on the host: a plan's accuracy on validation images, tuned for a moment by `tuning`."""

    def __init__(self, ground: Ground, criterion: Ranked, tuning: BriefTuning | None) -> None:
        self._criterion = criterion
        self._score = Scoring(ground.network, ground.structure, criterion, ground.validation, tuning)
        self._known: dict[str, Candidate] = {}
        #: How often it was asked.
        self.count = 0

    def __call__(self, widths: Widths) -> Candidate:
        """Accuracy and NCR of the network with these widths; groups not named stay whole."""
        self.count += 1
        plan = self._criterion.plan(dict(widths))
        if plan.key not in self._known:
            _, accuracy, ncr = self._score(plan)
            self._known[plan.key] = Candidate(plan, accuracy, ncr, None, 0)
        return self._known[plan.key]


class Workbench:
    """One seed's network with what methods share: criteria, the images candidates are tuned on, and their costs."""

    def __init__(self, ground: Ground, progress: Progress) -> None:
        self.ground = ground
        self._progress = progress
        self._criteria: dict[tuple[str, bool], tuple[Ranked, float]] = {}
        self._tuning: tuple[BriefTuning, float] | None = None

    def criterion(self, name: str, repair: bool) -> tuple[Ranked, float]:
        """A criterion and the seconds its ranking took, which count for every method that uses it."""
        if (name, repair) not in self._criteria:
            started, ground = time.monotonic(), self.ground
            criterion = make_criterion(
                name,
                repair=repair,
                network=ground.network,
                structure=ground.structure,
                train_set=ground.train,
                validation=ground.validation,
                images=CALIBRATION_IMAGES,
                seed=ground.seed,
                progress=self._progress,
            )
            self._criteria[name, repair] = criterion, time.monotonic() - started
        return self._criteria[name, repair]

    def tuning(self) -> tuple[BriefTuning, float]:
        """What tunes candidates, and the seconds it took to make."""
        if self._tuning is None:
            started = time.monotonic()
            teacher = Distillation(self.ground.network)
            ground = self.ground
            brief = BriefTuning(
                ground.train, teacher, steps=BRIEF_STEPS, learning_rate=ground.learning_rate, seed=ground.seed
            )
            self._tuning = brief, time.monotonic() - started
        return self._tuning

    def search(
        self, method: Method, criterion: str, *, ncr: float, episodes: int, beta: float = 1.0, bound: bool = True
    ) -> tuple[list[Episode], SearchResult, Scorer, float]:
        """One search, and the seconds it took, ranking included; not `bound`, only the reward asks for the NCR."""
        ground = self.ground
        ranked, seconds = self.criterion(criterion, method.repair)
        tuning = None
        if method.tuned:
            tuning, spent = self.tuning()
            seconds += spent
        started = time.monotonic()
        scorer = Scorer(ground, ranked, tuning)
        groups = ground.structure.groups
        environment = Environment(
            groups,
            scorer,
            Reward(ground.validation_accuracy, ncr, 1.0, 1.0, beta=beta),
            neurons=ground.structure.neurons(ground.network),
            min_ncr=ncr if bound and method.bound else None,
            credit=method.credit,
            states=method.states(groups, ranked.ranking.lost),
        )
        found: list[Episode] = []
        best = float("-inf")
        with self._progress.task("searching", episodes) as task:

            def note(_: int, episode: Episode) -> None:
                nonlocal best
                found.append(episode)
                best = max(best, episode.reward)
                task.advance(1, f"best reward {best:.4f}")

            result = method.search(environment, episodes=episodes, seed=ground.seed, on_episode=note)
        return found, result, scorer, seconds + time.monotonic() - started


def run_bench(config: BenchConfig, progress: Progress) -> None:
    """Run what is not finished yet in `config.out`; what is there is not run again.

    Raises UsageError for settings that are not those the folder was made with, DataError, StorageError.
    """
    folder = config.out
    labels = [parse_label(text) for text in dict.fromkeys(config.methods)]
    for seed in range(config.seeds):
        if config.budget_evals is not None:
            missing = [name for name in COMPARED if not _eval_file(config, name, seed).exists()]
            if missing:
                bench = Workbench(_ground(config, seed, progress), progress)
                for name in missing:
                    progress.stage(f"{name} at {config.budget_evals} evaluations, seed {seed}")
                    _compare(config, name, bench)
            continue
        rows = [label for label in labels if not _cell_file(folder, label, seed).exists()]
        sweep = config.beta and seed == 0 and not (folder / "beta.json").exists()
        if rows or sweep:
            bench = Workbench(_ground(config, seed, progress), progress)
            for label in rows:
                progress.stage(f"{label.text}, seed {seed}")
                try:
                    outcome = _outcome(config, label, bench, progress)
                except UsageError as error:
                    # A rate that this method does not come to: the other rows are worth having without it.
                    progress.say(f"left out: {error}")
                    continue
                _finish(config, label, bench.ground, outcome, progress)
            if sweep:
                progress.stage("beta")
                _sweep(config, bench)
    if config.budget_evals is not None:
        _gather(config)


def _cell_file(folder: Path, label: Label, seed: int) -> Path:
    return folder / "cells" / f"{label.text}-{seed}.json"


def _eval_file(config: BenchConfig, name: str, seed: int) -> Path:
    return config.out / "evals" / str(config.budget_evals) / f"{name}-{seed}.json"


def target(config: BenchConfig, label: Label) -> float:
    """The NCR a row must reach: its own, the published one, that of rows without one."""
    return label.ncr or config.targets.get(label.method) or config.targets.get("") or NCR


def _ground(config: BenchConfig, seed: int, progress: Progress) -> Ground:
    """Data, split and unpruned network of one seed; trained once, kept in the folder."""
    progress.stage(f"unpruned network, seed {seed}")
    folder = config.out
    dataset = load_data(config.data, config.data_dir, seed=seed, progress=progress)
    shape, classes = dataset.input_shape, len(dataset.classes)
    train_set, validation, test = (
        Batches(split, dataset.preprocessing) for split in (dataset.train, dataset.validation, dataset.test)
    )
    torch.manual_seed(seed)
    colour = len(shape) == 3 and shape[0] == 3
    network = make_model("mlp-1024-1024" if colour else "lenet-300-100", shape, classes)
    structure = discover(network, shape, runtime="onnxruntime", max_sparsity=0.95)
    big = sum(p.numel() for p in network.parameters()) > BIG
    learning_rate, part = (BIG_LEARNING_RATE, 3) if big else (LEARNING_RATE, 1)
    train_epochs, finetune_epochs = config.train_epochs or 30 // part, config.finetune_epochs or 40 // part
    sizes = [structure.inputs, *(structure_width(network, name) for name in structure.hidden_layers), classes]
    with storing(folder):
        for name in ("cells", "weights"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    _header(config, sizes, train_epochs, finetune_epochs)
    weights, note = folder / "weights" / f"baseline-{seed}.safetensors", folder / f"baseline-{seed}.json"
    if note.exists() and weights.exists():
        network.load_state_dict(load_file(weights))
    else:
        started = time.monotonic()
        fit = train(
            network, train_set, validation, epochs=train_epochs, learning_rate=learning_rate, batch_size=BATCH_SIZE,
            seed=seed, progress=progress, title="training",
        )  # fmt: skip
        network = fit.network
        _save(weights, network)
        known = {"accuracy": score(network, test), "validation": fit.accuracy, "epochs": train_epochs}
        write_json(note, {"schema": SCHEMA, "seed": seed, **known, "seconds": round(time.monotonic() - started, 1)})
    network.eval()
    said = read_json(note)
    progress.say(f"unpruned: {100 * said['accuracy']:.2f} % on test after {said['epochs']} epochs")
    accuracy, own = said["accuracy"], said["validation"]
    return Ground(
        seed, dataset, train_set, validation, test, network, structure, accuracy, own, finetune_epochs, learning_rate
    )


def structure_width(network: nn.Module, name: str) -> int:
    """Neurons of a linear layer."""
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer.out_features


def _header(config: BenchConfig, sizes: list[int], train_epochs: int, finetune_epochs: int) -> None:
    """Write bench.json, or raise UsageError where the folder was made with other settings."""
    path = config.out / "bench.json"
    fixed = {
        "schema": SCHEMA,
        "data": config.published or config.data,
        "net": sizes,
        "train_epochs": train_epochs,
        "finetune_epochs": finetune_epochs,
        "episodes": config.episodes,
    }
    earlier: dict[str, Any] = read_json(path) if path.exists() else fixed
    for key, value in fixed.items():
        if earlier.get(key) != value:
            raise UsageError(
                f"{config.out} was made with {key.replace('_', ' ')} {earlier.get(key)}, not {value}",
                "give another --out, or the same settings",
            )
    seeds = sorted({*range(config.seeds), *earlier.get("seeds", [])})
    methods = list(dict.fromkeys([*earlier.get("methods", []), *config.methods]))
    write_json(
        path,
        {**fixed, "seeds": seeds, "methods": methods, "machine": _machine(), "published": bool(config.published)},
    )


def _machine() -> str:
    """What the seconds were taken on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _save(path: Path, network: nn.Module) -> None:
    write_bytes(path, save({name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}))


def _outcome(config: BenchConfig, label: Label, bench: Workbench, progress: Progress) -> Outcome:
    ground, ncr = bench.ground, target(config, label)
    if label.method == UNPRUNED:
        return Outcome(deepcopy(ground.network), PruningPlan({}), 0.0)
    if label.method in baselines.METHODS:
        started = time.monotonic()
        epochs = max(OWN_EPOCHS, ground.finetune_epochs // 2)
        made = baselines.METHODS[label.method](
            ground.network, ground.structure, ground.train, ground.validation, ncr=ncr, epochs=epochs,
            learning_rate=ground.learning_rate, batch_size=BATCH_SIZE, seed=ground.seed, progress=progress,
        )  # fmt: skip
        network = cut(made.network, ground.structure.shape, made.plan)
        return Outcome(network, made.plan, time.monotonic() - started, ncr, made.epochs)
    method = METHODS[label.method]
    criterion = label.criterion or method.criterion
    episodes, result, scorer, seconds = bench.search(method, criterion, ncr=ncr, episodes=config.episodes)
    plan = pick(episodes, ncr).candidate.plan
    ranked, _ = bench.criterion(criterion, method.repair)
    network = prune(ranked, ground.structure, plan, check=True, inputs=ground.validation.inputs(slice(0, 16)))
    return Outcome(
        network,
        plan,
        seconds,
        ncr,
        0,
        scorer.count,
        tuple(e.reward for e in episodes),
        result,
        criterion,
        method.repair,
    )


def pick(episodes: list[Episode], ncr: float) -> Episode:
    """The most accurate of those that reach the NCR; where none does, the one that comes nearest."""
    reached = [episode for episode in episodes if episode.candidate.ncr >= ncr]
    if reached:
        return max(reached, key=lambda episode: episode.candidate.accuracy)
    return max(episodes, key=lambda episode: episode.candidate.ncr)


def _finish(config: BenchConfig, label: Label, ground: Ground, outcome: Outcome, progress: Progress) -> None:
    """Fine-tune as everyone is, score on the test set, write the cell."""
    started, structure = time.monotonic(), ground.structure
    before = score(outcome.network, ground.test)
    augmentation = Augmentation.fit(structure.shape, mirrors=ground.dataset.mirrors)
    fit = train(
        outcome.network, ground.train, ground.validation, epochs=ground.finetune_epochs,
        learning_rate=ground.learning_rate, batch_size=BATCH_SIZE, seed=ground.seed, progress=progress,
        title="fine-tuning", distillation=Distillation(ground.network), augmentation=augmentation,
        weight_decay=FINETUNE_DECAY,
    )  # fmt: skip
    accuracy = score(fit.network, ground.test)
    widths = {g.name: outcome.plan.widths.get(g.name, g.channels) for g in structure.groups}
    ncr = structure.neurons(ground.network) / structure.neurons(fit.network)
    weights = f"weights/{label.text}-{ground.seed}.safetensors"
    wide = widen(ground.network, structure, outcome.plan, fit.network) if outcome.plan.kept else fit.network
    _save(config.out / weights, wide)
    share = count_macs(fit.network, structure.shape) / count_macs(ground.network, structure.shape)
    cell: dict[str, Any] = {
        "schema": SCHEMA,
        "method": label.text,
        "seed": ground.seed,
        "widths": widths,
        "ncr": ncr,
        "ncr_target": outcome.ncr,
        "macs_share": share,
        "baseline_accuracy": ground.accuracy,
        "accuracy_before": before,
        "accuracy": accuracy,
        "error": 100 * (ground.accuracy - accuracy),
        "validation_accuracy": fit.accuracy,
        "search_seconds": round(outcome.seconds, 2),
        "finetune_seconds": round(time.monotonic() - started, 2),
        "method_epochs": outcome.epochs,
        "finetune_epochs": ground.finetune_epochs,
        "evaluations": outcome.evaluations,
        "agent_sparsity": outcome.result.agent_sparsity,
        "rewards": outcome.rewards,
        "losses": outcome.result.losses,
        "criterion": outcome.criterion,
        "repair": outcome.repair,
        "weights": weights,
    }
    write_json(_cell_file(config.out, label, ground.seed), cell)
    layers = "-".join(map(str, widths.values()))
    progress.say(f"{layers}: NCR {ncr:.2f}, error {cell['error']:.2f} points, search {outcome.seconds:.1f} s")


def _compare(config: BenchConfig, name: str, bench: Workbench) -> None:
    """One search of the comparison: the best reward so far after every evaluation.

    Criterion, repair and scoring are the same for all, so that only the searches differ.
    """
    assert config.budget_evals is not None
    method = METHODS[name]
    fair = Method(method.search, method.states, "episode", True, "reconstruction", True, True)
    ncr = config.targets.get("") or NCR
    episodes, result, _, seconds = bench.search(fair, fair.criterion, ncr=ncr, episodes=config.budget_evals)
    # A plan that misses the NCR is no answer, however accurate.
    rewards = [e.reward if e.candidate.ncr >= ncr else 0.0 for e in episodes]
    curve = [max(rewards[: index + 1]) for index in range(len(rewards))]
    path = _eval_file(config, name, bench.ground.seed)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    best = pick(episodes, ncr).candidate
    write_json(
        path,
        {
            "schema": SCHEMA,
            "method": name,
            "seed": bench.ground.seed,
            "curve": curve,
            "widths": best.plan.widths,
            "accuracy": best.accuracy,
            "seconds": round(seconds, 2),
            "agent_sparsity": result.agent_sparsity,
        },
    )


def _gather(config: BenchConfig) -> None:
    """evals.json and sparsity.json of what the comparison has."""
    seeds = list(range(config.seeds))
    found = {name: [read_json(_eval_file(config, name, seed)) for seed in seeds] for name in COMPARED}
    methods = {
        name: {"final": [one["curve"][-1] for one in each], "curves": [one["curve"] for one in each]}
        for name, each in found.items()
    }
    write_json(
        config.out / "evals.json",
        {"schema": SCHEMA, "budget": config.budget_evals, "seeds": seeds, "methods": methods},
    )
    agents = {
        key: {"rewards": methods[name]["final"], "sparsity": [one["agent_sparsity"] for one in found[name]]}
        for key, name in (("penalty", "edgeprune"), ("none", "edgeprune-noprox"))
    }
    write_json(config.out / "sparsity.json", {"schema": SCHEMA, **agents})


def _sweep(config: BenchConfig, bench: Workbench) -> None:
    """The paper's figure 4: what the best plan by reward comes to when only the reward asks for the NCR."""
    method = METHODS["edgeprune"]
    # Twice the rate of the table: within easy reach there is nothing to balance.
    ncr = 2 * (config.targets.get("") or NCR)
    points = []
    for beta in BETAS:
        episodes, *_ = bench.search(method, method.criterion, ncr=ncr, episodes=config.episodes, beta=beta, bound=False)
        best = max(episodes, key=lambda episode: episode.reward).candidate
        points.append({"beta": beta, "accuracy": best.accuracy, "ncr": best.ncr})
    write_json(
        config.out / "beta.json",
        {"schema": SCHEMA, "method": "edgeprune", "seed": bench.ground.seed, "points": points},
    )
