"""What the methods of `bench paper` share: data, split, the unpruned network, criteria, and how a search is run; and
what all benches do with their folders.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from edgeprune.core.errors import UsageError
from edgeprune.core.files import storing, sweep_temporary, write_json
from edgeprune.core.lock import FolderLock, discard_empty
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.schema import BENCH_SCHEMA, read_stamped
from edgeprune.core.trial import Candidate
from edgeprune.core.version import VERSION
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset
from edgeprune.models.source import make_model
from edgeprune.models.weights import save_weights
from edgeprune.papers.bench_config import BenchConfig
from edgeprune.papers.records import Baseline, BenchHeader, read_file, source_of
from edgeprune.pipeline.criterion import make_criterion
from edgeprune.pipeline.finetune import MakeCriterion
from edgeprune.pipeline.scoring import Scoring
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Criterion, Structure
from edgeprune.search.drive import SearchResult, drive
from edgeprune.search.environment import Environment, Episode
from edgeprune.search.methods import Method
from edgeprune.search.reward import Reward
from edgeprune.search.space import Space, Widths
from edgeprune.search.states import Losses
from edgeprune.training.batches import Batches
from edgeprune.training.brief import FASTER, BriefTuning
from edgeprune.training.fit import score, train
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime

#: Training images that criteria look at.
CALIBRATION_IMAGES = 8000
#: Steps that a candidate is tuned for before it is scored, of networks under and over `BIG` parameters.
BRIEF_STEPS, BIG_BRIEF_STEPS = 150, 100
#: Peak learning rates of networks under and over `BIG` parameters.
LEARNING_RATE, BIG_LEARNING_RATE = 2e-3, 4e-4
BATCH_SIZE = 128
#: Epochs of the unpruned network and of fine-tuning, of networks under and over `BIG` parameters: longer training only
#: fits a big one closer to its training images, and a small one that is cut to a fifth still gains after 60 epochs.
EPOCHS, BIG_EPOCHS = (30, 100), (10, 20)
#: Parameters from which a network counts as big.
BIG = 1_000_000


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
    #: Of the unpruned network, and of what each method leaves.
    train_epochs: int
    finetune_epochs: int
    learning_rate: float
    brief_steps: int

    @property
    def problem(self) -> Problem:
        """What networks learn from."""
        return Problem(self.train, self.validation)


class Scorer:
    """`evaluate` of the search on the host: a plan's accuracy on validation images, tuned for a moment by `tuning`."""

    def __init__(self, ground: Ground, criterion: Ranked, tuning: BriefTuning | None) -> None:
        self._criterion = criterion
        self._score = Scoring(ground.network, ground.structure, criterion, ground.problem, tuning)
        self._known: dict[str, Candidate] = {}
        #: How often it was asked.
        self.count = 0

    def __call__(self, widths: Widths) -> Candidate:
        """Accuracy and NCR of the network with these widths; groups not named stay whole."""
        self.count += 1
        plan = self._criterion.plan(dict(widths))
        if plan.key not in self._known:
            accuracy, ncr = self._score(self._score.network(plan))
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
            criterion = self._ranked(name, repair, ground.network, ground.structure)
            self._criteria[name, repair] = criterion, time.monotonic() - started
        return self._criteria[name, repair]

    def ranks(self, name: str, repair: bool) -> MakeCriterion:
        """The criterion `name` of the unpruned network, and of those on the way from it to a pruned one."""

        def rank(network: nn.Module, structure: Structure) -> Criterion:
            known = network is self.ground.network
            return self.criterion(name, repair)[0] if known else self._ranked(name, repair, network, structure)

        return rank

    def _ranked(self, name: str, repair: bool, network: nn.Module, structure: Structure) -> Ranked:
        ground = self.ground
        return make_criterion(
            name,
            repair=repair,
            network=network,
            structure=structure,
            problem=ground.problem,
            images=CALIBRATION_IMAGES,
            seed=ground.seed,
            progress=self._progress,
        )

    def tuning(self) -> tuple[BriefTuning, float]:
        """What tunes candidates, and the seconds it took to make."""
        if self._tuning is None:
            started, ground = time.monotonic(), self.ground
            brief = BriefTuning(
                ground.train,
                ground.network,
                steps=ground.brief_steps,
                learning_rate=FASTER * ground.learning_rate,
                seed=ground.seed,
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
            Space(groups, ground.structure.neurons(ground.network)),
            scorer,
            Reward(ground.validation_accuracy, ncr, 1.0, 1.0, beta=beta),
            min_ncr=ncr if bound and method.bound else None,
            credit=method.credit,
            states=method.states(groups, lambda: Losses(ranked.ranking.errors())),
        )
        found: list[Episode] = []
        best = float("-inf")
        with self._progress.bar("searching", episodes) as bar:

            def note(_: int, episode: Episode) -> None:
                nonlocal best
                found.append(episode)
                best = max(best, episode.reward)
                bar.advance(1, f"best reward {best:.4f}")

            result = drive(
                method.search(environment, episodes=episodes, seed=ground.seed), environment, on_episode=note
            )
        return found, result, scorer, seconds + time.monotonic() - started


@contextmanager
def owned(folder: Path, progress: Progress) -> Iterator[None]:
    """A bench's folder, made where it is not there, for this process alone; removed again where nothing came into it.

    Raises UsageError where another process is at it, StorageError.
    """
    made = not folder.exists()
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with closing(FolderLock(folder, f"bench {folder}")) as lock:
            if lock.left_by is not None:
                progress.say(f"taken over from {lock.left_by}, which was killed")
            if left := sweep_temporary(folder):
                progress.say(f"removed what was left half done: {', '.join(left)}")
            yield
    finally:
        if made:
            discard_empty(folder)


def make_ground(config: BenchConfig, seed: int, progress: Progress) -> Ground:
    """Data, split and unpruned network of one seed; trained once, kept in the folder."""
    progress.stage(f"unpruned network, seed {seed}")
    folder = config.out
    dataset = load_data(config.data, config.data_dir, seed=seed, progress=progress)
    dataset.check_classes("bench paper")
    shape, classes = dataset.input_shape, len(dataset.classes)
    train_set, validation, test = (
        Batches(split, dataset.preprocessing) for split in (dataset.train, dataset.validation, dataset.test)
    )
    network = _untrained(dataset, config.model, seed)
    structure = discover(network, shape, runtime="onnxruntime", max_sparsity=0.95)
    big = sum(p.numel() for p in network.parameters()) > BIG
    learning_rate, epochs, brief_steps = (
        (BIG_LEARNING_RATE, BIG_EPOCHS, BIG_BRIEF_STEPS) if big else (LEARNING_RATE, EPOCHS, BRIEF_STEPS)
    )
    train_epochs, finetune_epochs = config.train_epochs or epochs[0], config.finetune_epochs or epochs[1]
    sizes = [structure.inputs, *(weighted(network, name).weight.shape[0] for name in structure.hidden_layers), classes]
    _write_header(config, sizes, train_epochs, finetune_epochs)
    weights, note = folder / "weights" / f"baseline-{seed}.safetensors", folder / f"baseline-{seed}.json"
    if note.exists() and weights.exists():
        with source_of(weights).guarded():
            network.load_state_dict(load_file(weights))
    else:
        started = time.monotonic()
        regime = Regime(epochs=train_epochs, learning_rate=learning_rate, batch_size=BATCH_SIZE, seed=seed)
        fit = train(network, Problem(train_set, validation), regime, progress=progress, title="training")
        network = fit.network
        save_weights(weights, network)
        made = Baseline(
            **origin(),
            seed=seed,
            data=dataset.fingerprint,
            accuracy=score(network, test),
            validation=fit.accuracy,
            epochs=train_epochs,
            seconds=round(time.monotonic() - started, 1),
        )
        write_json(note, to_json(made))
    network.eval()
    said = _read_baseline(note, config, dataset)
    progress.say(f"unpruned: {100 * said.accuracy:.2f} % on test after {said.epochs} epochs")
    return Ground(
        seed=seed,
        dataset=dataset,
        train=train_set,
        validation=validation,
        test=test,
        network=network,
        structure=structure,
        accuracy=said.accuracy,
        validation_accuracy=said.validation,
        train_epochs=train_epochs,
        finetune_epochs=finetune_epochs,
        learning_rate=learning_rate,
        brief_steps=brief_steps,
    )


def _untrained(dataset: Dataset, model: str | None, seed: int) -> nn.Module:
    """`model`, or the papers' network: 300-100, or 1024-1024 for colour images."""
    shape = dataset.input_shape
    colour = len(shape) == 3 and shape[0] == 3
    torch.manual_seed(seed)
    return make_model(model or ("mlp-1024-1024" if colour else "lenet-300-100"), shape, len(dataset.classes))


def _read_baseline(note: Path, config: BenchConfig, dataset: Dataset) -> Baseline:
    """What the folder says of its unpruned network. Raises UsageError where that was trained on other data."""
    said = read_file(note, Baseline)
    if said.data not in (None, dataset.fingerprint):
        raise UsageError(f"{config.out} was made with other data than {config.data} now holds", "give another --out")
    return said


def check_settings(
    folder: Path, settings: Mapping[str, Any], earlier: Mapping[str, Any] | None = None, of: str = ""
) -> None:
    """Raises UsageError where the bench folder was made with other `settings` than these, or by another version.

    `earlier` is what it was made with, where bench.json keeps that apart; `of` says of what, " for NAME".
    """
    path = folder / "bench.json"
    header = read_stamped(source_of(path), BENCH_SCHEMA, "give another --out") if path.exists() else settings
    known = header if not of else settings if earlier is None else earlier
    for key, value in settings.items():
        if known.get(key) != value:
            made, asked = ("none given" if each is None else each for each in (known.get(key), value))
            raise UsageError(
                f"{folder} was made with {key.replace('_', ' ')} {made}{of}, not {asked}",
                "give another --out, or the same settings",
            )


def _write_header(config: BenchConfig, sizes: list[int], train_epochs: int, finetune_epochs: int) -> None:
    """Write bench.json and the folders. Raises as `check_settings`."""
    with storing(config.out):
        for name in ("cells", "weights"):
            (config.out / name).mkdir(parents=True, exist_ok=True)
    path = config.out / "bench.json"
    epochs = {"train_epochs": train_epochs, "finetune_epochs": finetune_epochs}
    check_settings(config.out, {**config.asked, "net": sizes, **epochs})
    earlier = read_file(path, BenchHeader) if path.exists() else None
    # The comparison at equal evaluations adds no rows to the table.
    rows = config.rows if config.budget_evals is None else ()
    header = BenchHeader(
        data=config.asked["data"],
        model=config.model,
        episodes=config.episodes,
        net=tuple(sizes),
        train_epochs=train_epochs,
        finetune_epochs=finetune_epochs,
        seeds=tuple(sorted({*range(config.seeds if rows else 0), *(earlier.seeds if earlier else ())})),
        methods=tuple(dict.fromkeys([*(earlier.methods if earlier else ()), *rows])),
        machine=machine(),
        published=bool(config.published),
    )
    write_json(path, to_json(header))


def origin() -> dict[str, Any]:
    """What every cell and every unpruned network says of where it comes from."""
    return {"edgeprune": VERSION, "machine": machine()}


def machine() -> str:
    """What the seconds were taken on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
