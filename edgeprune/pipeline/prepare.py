"""Stage one: everything that is fixed before the search begins, tried and told in this order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgeprune.core.errors import UsageError
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.store import RunFolder
from edgeprune.data.dataset import Dataset
from edgeprune.data.split import preprocessed
from edgeprune.models.zoo import ZOO
from edgeprune.pipeline.baseline import frozen_names, make_baseline
from edgeprune.pipeline.config import RunConfig, Setting
from edgeprune.pipeline.found import find
from edgeprune.pipeline.guessing import check_baseline
from edgeprune.pipeline.placing import UNSETTLED, Training, first_place, settle_precision, settle_training, train_device
from edgeprune.pipeline.records.backends import ChosenBackend
from edgeprune.pipeline.rehearse import Shipped
from edgeprune.pipeline.scaling import WHY, Scaling, settle_scaling
from edgeprune.pipeline.seen import how_familiar
from edgeprune.pipeline.settings import Facts, Schedule, Settled
from edgeprune.pipeline.staying import tell_stays
from edgeprune.pruning.structure import Structure
from edgeprune.tasks.metrics import Yardstick
from edgeprune.tasks.own import OwnTask
from edgeprune.tasks.task import Task
from edgeprune.training.batches import Batches
from edgeprune.training.heap import keep_freed_memory
from edgeprune.training.place import Place
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Taken


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is fixed before the search begins."""

    dataset: Dataset
    train: Batches
    validation: Batches
    network: nn.Module
    structure: Structure
    facts: Facts
    settled: Settled
    task: Task
    #: A zoo network, or FILE.py:FUNCTION.
    model: str
    #: The unpruned network's quality on validation, by the task's metric.
    validation_accuracy: float
    #: How the baseline came about: {"source": "weights" | "model" | "trained" | "cached", ...}.
    baseline: dict[str, Any]
    #: How inputs are scaled, and why so; `dataset` has it already.
    scaling: Scaling
    #: The formats that are exported.
    shipped: Shipped
    #: Where networks are trained and scored.
    training: Training = UNSETTLED
    #: Which epoch of fine-tuning is taken: the last where the weights came trained, perhaps on validation images too.
    taken: Taken = "best"
    #: None where runtime and threads were not left to choose.
    backend: ChosenBackend | None = None

    @property
    def schedule(self) -> Schedule:
        """How the baseline is trained and the pruned network tuned."""
        return self.settled.schedule

    @property
    def problem(self) -> Problem:
        """What networks learn from, and what for."""
        return Problem(self.train, self.validation, self.task)

    @property
    def yardstick(self) -> Yardstick:
        """What qualities on validation are in the metric's own terms."""
        return self.problem.yardstick

    def measured_by(self, backend: ChosenBackend) -> Prepared:
        """With the runtime and the threads that were chosen on the device."""
        why = f"of {len(backend.timed)} that were timed there"
        chosen: dict[str, Setting] = {name: Setting(getattr(backend, name), why) for name in backend.chosen}
        return replace(self, backend=backend, settled=replace(self.settled, options={**self.settled.options, **chosen}))

    @property
    def place(self) -> Place:
        """Where networks are trained and scored."""
        return self.training.place


@dataclass(frozen=True, slots=True)
class Content:
    """What content.json holds: a hash of data, weights and code that trials were made with, and what was settled.

    `scaling` is None in the folders of older versions, which trained in the plain place.
    """

    content: str
    scaling: Scaling | None = None
    training: Training = UNSETTLED


def prepare(
    config: RunConfig,
    folder: RunFolder,
    progress: Progress,
    runtime: RuntimeName,
    try_formats: Callable[[nn.Module, Batches], Shipped] | None = None,
    dataset: Dataset | None = None,
    *,
    prunes: bool = True,
) -> Prepared:
    """Load or train everything; `runtime` is the one that widths are snapped for.

    `try_formats` is asked for what ships before anything is trained, with the untrained network and the validation
    data (see `rehearse`); without it all formats of `config` do. `dataset`: that of `config`, loaded before. `prunes`
    False: the network stays as it is (see `find`). Raises UsageError and its children for what cannot be used.
    """
    # A device that is not there is told before anything is loaded.
    train_device(config)
    found = find(config, progress, runtime, dataset, prunes=prunes)
    dataset, network, structure, task = found.dataset, found.network, found.structure, found.task
    facts, settled = found.facts, found.settled
    # Nor should one cost it that cannot be exported, or that the device does not run.
    shipped = Shipped(config.exported)
    if try_formats is not None:
        shipped = try_formats(network, Batches(dataset.validation, dataset.preprocessing))
    stored = _stored(folder)
    scaling, trained = settle_scaling(config, stored.scaling if stored else None, network, dataset, progress, task)
    as_loaded, dataset = dataset, preprocessed(dataset, scaling.preprocessing)
    train_set, validation = (Batches(each, dataset.preprocessing) for each in (dataset.train, dataset.validation))
    problem = Problem(train_set, validation, task)
    if facts.convolves and train_device(config) == "cpu":
        keep_freed_memory()
    training = settle_training(
        config, stored.training if stored else None, network, problem, settled.schedule.batch_size, progress
    )
    familiar = how_familiar(network, problem) if trained else None
    taken: Taken = "best" if familiar is None or familiar.told_apart else "last"
    regime = settled.schedule.baseline(settled.seed, first_place(config, training), taken)
    baseline = make_baseline(config, folder, network, problem, regime, dataset, progress, trained=trained)
    network.eval()
    if prunes:
        tell_stays(structure, progress, folder.log)
    quality = check_baseline(network, problem, as_loaded, scaling.preprocessing, progress, foreign=trained)
    groups = f", {len(structure.groups)} groups to prune" if prunes else ""
    progress.say(f"unpruned network: validation {task.metric.title} {problem.yardstick.show(quality)}{groups}")
    if prunes and familiar is not None and taken == "last":
        progress.say(
            f"{familiar.said}: the weights may have been trained on both, so fine-tuning's last epoch is taken, and "
            "not validation's best"
        )
    if stored is None:
        training = settle_precision(config, training, network, problem, progress)
    _same_content(folder, stored, dataset, network, scaling, training, task)
    if config.train_epochs is None and baseline["source"] in ("weights", "model"):
        # Asked for, training would go on from the user's weights.
        settled = settled.without("train_epochs")
    settled = _found_out(settled, config, task, scaling, training)
    return Prepared(
        dataset, train_set, validation, network, structure, facts, settled, task, config.model, quality,
        baseline, scaling, shipped, training, taken,
    )  # fmt: skip


def _found_out(settled: Settled, config: RunConfig, task: Task, scaling: Scaling, training: Training) -> Settled:
    """With the options that were left open until something was tried or measured."""
    settled = settled.found("task", task.name, "worked out from the targets and the answers")
    settled = settled.found("max_drop", _drop(task), "a network that is fast and wrong is of no use")
    # A task of the user's own has its score and no other: nothing that could be asked for again.
    if not config.own_task:
        settled = settled.found("metric", task.metric.name, f"usual for {task.name}")
    settled = settled.found("preprocessing", scaling.name, WHY[scaling.source])
    settled = settled.found("train_device", training.place.device, "what torch finds here, and the network bears")
    pace = (
        f"{training.speedup(training.place):.2f}x the pace of float32" if training.timed else "nothing to choose from"
    )
    return settled.found("train_precision", training.place.precision, pace)


def untrained(config: RunConfig, progress: Progress, runtime: RuntimeName) -> Prepared:
    """As `prepare`, with the weights that the network comes with, and nothing tried: for what does not hang on them."""
    found = find(config, progress, runtime, branches=True)
    preprocessing = found.dataset.preprocessing
    return Prepared(
        found.dataset,
        Batches(found.dataset.train, preprocessing),
        Batches(found.dataset.validation, preprocessing),
        found.network.eval(),
        found.structure,
        found.facts,
        found.settled,
        found.task,
        config.model,
        1.0,
        {"source": "untrained"},
        Scaling(preprocessing, "data"),
        Shipped(config.exported),
    )


def _stored(folder: RunFolder) -> Content | None:
    """What the run that is resumed began with; None for a new one. Raises StorageError where it is damaged."""
    return folder.read_json("content.json", Content) if (folder / "content.json").exists() else None


def _same_content(
    folder: RunFolder,
    stored: Content | None,
    dataset: Dataset,
    network: nn.Module,
    scaling: Scaling,
    training: Training,
    task: Task,
) -> None:
    """Raises UsageError where a resumed run's data, weights or code are not what its trials were made with."""
    digest = hashlib.sha256((dataset.fingerprint + repr(network)).encode() + frozen_names(network))
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    if isinstance(task, OwnTask):
        # Others are told by their names, which a resumed run keeps; the user may have changed what his scores mean.
        digest.update(repr(task.key).encode())
    if stored is None:
        folder.write_json("content.json", to_json(Content(digest.hexdigest(), scaling, training)))
    elif stored.content != digest.hexdigest():
        raise UsageError(
            f"data, weights, model or task changed since run '{folder.path.name}' began",
            "start a new run instead of resuming",
        )


def default_stem(config: RunConfig) -> str:
    """A run's name from its model and its data."""

    def short(spec: str) -> str:
        return spec if spec in ZOO else Path(spec.partition(":")[0]).stem

    return f"{short(config.model)}-{short(config.data)}"


def _drop(task: Task) -> float | str:
    drop = task.metric.usual_drop
    return drop if task.metric.share else f"{drop:g}%"
